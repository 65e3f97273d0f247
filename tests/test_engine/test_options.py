# Copyright (c) mmfishnet authors. All rights reserved.
from argparse import ArgumentParser
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope

from mmfishnet import config_path
from mmfishnet.engine.options import OptionsAction, merge_options


def parse(*words):
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction)
    return parser.parse_args(['--cfg-options', *words]).cfg_options


@pytest.mark.parametrize('text, value', [
    ('2', 2),
    ('1e-3', 1e-3),
    ('True', True),
    ('true', True),
    ('None', None),
    ('word', 'word'),
    ("'2'", '2'),
    ('1,2', [1, 2]),
    ('(0, 1)', (0, 1)),
    ('[(0,1),(2,3)]', [(0, 1), (2, 3)]),
    ('bbox,segm', ['bbox', 'segm']),
    ('[bbox, segm]', ['bbox', 'segm']),
    ('(a,(b,c))', ('a', ('b', 'c'))),
    ("['my class', 'b']", ['my class', 'b']),
    ("{'type': 'BN'}", dict(type='BN')),
    ('my data/a.json', 'my data/a.json'),
    ('my weights.pth', 'my weights.pth'),
    ('a,b.pth', 'a,b.pth'),
    ('a,b/c.pth', 'a,b/c.pth'),
    ('a=b.pth', 'a=b.pth'),
    ('k\u00e4se.pth', 'k\u00e4se.pth'),
    ('[x].pth', '[x].pth'),
    ('[x]/c.pth', '[x]/c.pth'),
    ('(x.pth', '(x.pth'),
    ('', ''),
])
def test_values(text, value):
    found = parse(f'a.b={text}')['a.b']
    assert found == value and type(found) is type(value)


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
                neck=dict(in_channels=[1]),
                heads=[dict(num_classes=80)])))


def test_other_values(cfg):
    merge_options(
        cfg,
        parse('train_cfg.max_epochs=2', 'model.heads.0.num_classes=3',
              'model.backbone.init_cfg=None', 'model.neck.in_channels=1,2'))
    assert cfg.train_cfg.max_epochs == 2
    assert cfg.model.heads[0].num_classes == 3
    assert cfg.model.backbone.init_cfg is None
    assert cfg.model.neck.in_channels == [1, 2]


def test_what_was_a_text_becomes_another(cfg):
    key = 'model.backbone.init_cfg.checkpoint'
    for text, value in ('7', 7), ('a,b', ['a', 'b']), ('True', True):
        merge_options(cfg, parse(f'{key}={text}'))
        assert cfg.model.backbone.init_cfg.checkpoint == value


@pytest.mark.parametrize('option, message', [
    ('max_epochs=2', 'max_epochs only serves to write the config'),
    ('trian_cfg.max_epochs=2', "has no trian_cfg.*mean 'train_cfg'"),
    ('pretrained.fishnet150=a.pth', 'would have no effect'),
    ('model.neck.in_channels.x=3', 'in_channels.x.*no such place'),
    ('train_cfg.max_epochs.x=3', 'max_epochs.x.*no such place'),
])
def test_options_without_effect_are_refused(cfg, option, message):
    with pytest.raises(ValueError, match=message):
        merge_options(cfg, parse(option))


@pytest.fixture(scope='module')
def mask_rcnn():
    return Config.fromfile(config_path('mask_rcnn_fishnet150_fpn.py'))


@pytest.mark.parametrize('key, meant', [
    ('model.test_cfg.rcnn.scores_thr', 'score_thr'),
    ('model.test_cfg.rcnn.max_per_image', 'max_per_img'),
    ('model.tset_cfg.rcnn.score_thr', 'test_cfg'),
    ('model.backbone.out_indexes', 'out_indices'),
    ('train_dataloader.batch_sizes', 'batch_size'),
    ('train_dataloader.dataset.filter_cfg.filter_empty', 'filter_empty_gt'),
    ('default_hooks.checkpoint.intervall', 'interval'),
    ('val_evaluator.metrics', 'metric'),
    ('optim_wrapper.optimizer.momentun', 'momentum'),
    ('param_scheduler.0.start_factors', 'start_factor'),
    ('train_dataloader.sampler.shufle', 'shuffle'),
])
def test_misspelt_names_are_refused(mask_rcnn, key, meant):
    with pytest.raises(ValueError, match=f'did you mean {meant!r}'):
        merge_options(deepcopy(mask_rcnn), parse(f'{key}=1'))


def test_new_names_are_taken(mask_rcnn):
    for key in (
            'model.test_cfg.rpn.nms_post', 'model.backbone.with_cp',
            'model.roi_head.bbox_head.loss_cls.loss_weight',
            'model.roi_head.bbox_head.num_shared_convs',
            'optim_wrapper.accumulative_counts',
            'train_dataloader.persistent_workers',
            'optim_wrapper.paramwise_cfg.norm_decay_mult',
            'env_cfg.dist_cfg.timeout', 'default_hooks.checkpoint.save_best',
            'default_hooks.logger.priority', 'train_cfg.val_begin',
            'train_dataloader.dataset.indices', 'custom_hooks.0.priority',
            'optim_wrapper.optimizer.nesterov', 'param_scheduler.1.verbose',
            'param_scheduler.0.convert_to_iter_based'):
        merge_options(deepcopy(mask_rcnn), parse(f'{key}=1'))


def test_what_is_no_option(capsys):
    with pytest.raises(SystemExit):
        parse('data/my', 'file.json')
    assert 'is no KEY=VALUE' in capsys.readouterr().err


@pytest.mark.parametrize('name, options, ends', [
    # 5 epochs of warm-up, and a cosine of 95
    ('mmpretrain::_base_/schedules/imagenet_bs1024_coslr.py',
     ['train_cfg.max_epochs=20'], [(None, 5), (15, 20)]),
    ('mmpretrain::_base_/schedules/imagenet_bs256_coslr.py',
     ['train_cfg={"max_epochs": 20}'], [(20, 20)]),
    # The training ends within the warm-up.
    ('mmpretrain::_base_/schedules/imagenet_bs1024_coslr.py',
     ['train_cfg.max_epochs=3'], [(None, 5), (95, 100)]),
    # Whoever sets schedulers means them.
    ('mmpretrain::_base_/schedules/imagenet_bs256_coslr.py',
     ['train_cfg.max_epochs=20', 'param_scheduler.eta_min=0.1'],
     [(100, 100)]),
    ('mmseg::_base_/schedules/schedule_80k.py',
     ['train_cfg.max_iters=50'], [(None, 50)]),
    # Milestones stay.
    ('mmdet::_base_/schedules/schedule_1x.py',
     ['train_cfg.max_epochs=6'], [(None, 500), (None, 6)]),
])
def test_schedulers_follow_the_length(name, options, ends):
    package, _, path = name.partition('::')
    cfg = Config.fromfile(
        Path(*find_spec(package).submodule_search_locations, '.mim/configs',
             path))
    before = deepcopy(cfg.param_scheduler)
    notes = merge_options(cfg, parse(*options))
    schedulers = cfg.param_scheduler
    schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
    assert [(s.get('T_max'), s.get('end')) for s in schedulers] == ends
    assert len(notes) == (cfg.param_scheduler != before
                          and len(options) == 1)
    if package == 'mmdet':
        assert schedulers[1].milestones == [8, 11]
    # As MMEngine's runner builds it: the last rate is the least.
    if notes and package == 'mmpretrain':
        init_default_scope('mmpretrain')
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1., momentum=0.9)
        built = PARAM_SCHEDULERS.build(
            schedulers[-1],
            default_args=dict(optimizer=optimizer, epoch_length=1))
        rates = []
        for _ in range(20):
            rates.append(optimizer.param_groups[0]['lr'])
            optimizer.step()
            built.step()
        assert rates[-1] == min(rates) < 0.05 * max(rates)
