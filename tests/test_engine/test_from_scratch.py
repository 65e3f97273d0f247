# Copyright (c) mmfishnet authors. All rights reserved.
import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmfishnet.engine.from_scratch import train_from_scratch


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
