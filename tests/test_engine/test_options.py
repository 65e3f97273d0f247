# Copyright (c) mmfishnet authors. All rights reserved.
from argparse import ArgumentParser

import pytest
from mmengine.config import Config

from mmfishnet.engine.options import OptionsAction, merge_options, parse_value


@pytest.mark.parametrize('text, value', [
    ('2', 2),
    ('1e-3', 1e-3),
    ('True', True),
    ('true', True),
    ('None', None),
    ('none', None),
    ('word', 'word'),
    ("'2'", '2'),
    ('1,2', [1, 2]),
    ('(0, 1)', (0, 1)),
    ('[(0,1),(2,3)]', [(0, 1), (2, 3)]),
    ('bbox,segm', ['bbox', 'segm']),
    ('[bbox, segm]', ['bbox', 'segm']),
    ('(a,(b,c))', ('a', ('b', 'c'))),
    ("dict(type='BN')", "dict(type='BN')"),
    ("{'type': 'BN'}", dict(type='BN')),
    ('my data/a.json', 'my data/a.json'),
    ('a,b/c.pth', 'a,b/c.pth'),
    ('[x]/c.pth', '[x]/c.pth'),
    ('', ''),
])
def test_values(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def parse(*words):
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction)
    return parser.parse_args(['--cfg-options', *words]).cfg_options


@pytest.fixture
def cfg():
    return Config(
        dict(
            pretrained=dict(fishnet150='old file.pth'),
            max_epochs=12,
            train_cfg=dict(max_epochs=12),
            model=dict(
                backbone=dict(
                    init_cfg=dict(checkpoint='old file.pth'),
                    norm_cfg=dict(type='BN')),
                heads=[dict(num_classes=80)])))


# What is a text in the config stays one, whatever is in it.
@pytest.mark.parametrize('path', [
    'my weights.pth', 'a,b.pth', 'a=b.pth', 'k\u00e4se.pth', '[x].pth', '1,2',
    '7'
])
def test_paths_are_taken_as_typed(cfg, path):
    key = 'model.backbone.init_cfg.checkpoint'
    assert merge_options(cfg, parse(f'{key}={path}')) == []
    assert cfg.model.backbone.init_cfg.checkpoint == path


def test_other_values(cfg):
    merge_options(
        cfg,
        parse('train_cfg.max_epochs=2', 'model.heads.0.num_classes=3',
              'model.backbone.init_cfg=None', 'model.neck.in_channels=1,2'))
    assert cfg.train_cfg.max_epochs == 2
    assert cfg.model.heads[0].num_classes == 3
    assert cfg.model.backbone.init_cfg is None
    assert cfg.model.neck.in_channels == [1, 2]


def test_names_of_texts_take_effect(cfg):
    note, = merge_options(cfg, parse('pretrained.fishnet150=a, b.pth'))
    assert cfg.model.backbone.init_cfg.checkpoint == 'a, b.pth'
    assert 'in 1 place of' in note


@pytest.mark.parametrize('option, message', [
    ('max_epochs=2', 'max_epochs only serves to write the config'),
    ('trian_cfg.max_epochs=2', 'the config has no trian_cfg'),
    ('pretrained.fishnet99=a.pth', 'would have no effect'),
])
def test_options_without_effect_are_refused(cfg, option, message):
    with pytest.raises(ValueError, match=message):
        merge_options(cfg, parse(option))


def test_what_is_no_option(capsys):
    with pytest.raises(SystemExit):
        parse('data/my', 'file.json')
    assert 'is no KEY=VALUE' in capsys.readouterr().err
