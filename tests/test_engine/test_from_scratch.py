# Copyright (c) mmfishnet authors. All rights reserved.
import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmfishnet.engine.from_scratch import follow_checkpoint, train_from_scratch


def test_from_scratch_builds_a_trainable_backbone():
    pytest.importorskip('mmdet')
    init_default_scope('mmdet')
    cfg = Config(
        dict(
            model=dict(
                backbone=dict(
                    type='ResNet',
                    depth=18,
                    frozen_stages=1,
                    norm_cfg=dict(type='BN', requires_grad=False),
                    norm_eval=True,
                    init_cfg=dict(type='Pretrained', checkpoint='no.pth')))))
    note = train_from_scratch(cfg)
    assert 'group norm' in note
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    backbone.train()
    norms = [m for m in backbone.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == 20
    assert not any(
        isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    assert all(p.requires_grad for p in backbone.parameters())


def test_from_scratch_keeps_norms_that_are_trained():
    norm = dict(type='BN', requires_grad=True)
    cfg = Config(dict(model=dict(backbone=dict(norm_cfg=norm))))
    assert 'group norm' not in train_from_scratch(cfg)
    assert cfg.model.backbone.norm_cfg == norm
    with pytest.raises(ValueError, match='backbone'):
        train_from_scratch(Config(dict(model=dict())))


@pytest.mark.parametrize('backbone, replaced', [
    (dict(type='ResNet', depth=18), True),  # norm_eval=True by default
    (dict(type='ResNet', depth=18, norm_eval=False), False),
    (dict(type='mmfishnet.FishNet', depth=99), False),
    (dict(type='mmfishnet.FishNet', depth=99, norm_eval=True), True),
    (dict(type='SwinTransformer'), False),
])
def test_from_scratch_knows_the_defaults(backbone, replaced):
    pytest.importorskip('mmdet')
    cfg = Config(dict(default_scope='mmdet', model=dict(backbone=backbone)))
    assert ('group norm' in train_from_scratch(cfg)) == replaced
    assert (cfg.model.backbone.get('norm_cfg', {}).get('type') == 'GN'
            ) == replaced
    assert not (replaced and cfg.model.backbone.norm_eval)


def test_checkpoint_says_whether_it_is_from_scratch():
    config = dict(model=dict(backbone=dict(norm_eval=True)))
    trained = Config(config)
    train_from_scratch(trained)
    scratch, tuned = (
        dict(meta=dict(cfg=cfg.pretty_text))
        for cfg in (trained, Config(config)))
    cfg = Config(config)
    for content in (tuned, {}, dict(meta=None), [1]):
        assert follow_checkpoint(cfg, 'a.pth', content) is None
        assert not cfg.model.backbone.get('norm_cfg')
    note = follow_checkpoint(cfg, 'a.pth', scratch)
    assert 'group norm' in note and 'a.pth was trained' in note
    assert cfg.model == trained.model
    assert follow_checkpoint(cfg, 'a.pth', scratch) is None
