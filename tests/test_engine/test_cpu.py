# Copyright (c) mmfishnet authors. All rights reserved.
import pytest
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper
from torch.nn import SyncBatchNorm

from mmfishnet.engine.cpu import adapt_to_cpu

no_gpu = pytest.mark.skipif(get_device() != 'cpu', reason='there is a GPU')


@no_gpu
def test_sync_bn_without_gpu():
    cfg = Config(
        dict(
            sync_bn='torch',
            find_unused_parameters=True,
            launcher='pytorch',
            model=dict(
                backbone=dict(norm_cfg=dict(type='SyncBN')),
                heads=[
                    dict(norm_cfg=dict(type='MMSyncBN')),
                    dict(norm_cfg=dict(type=SyncBatchNorm))
                ])))
    one, synced = adapt_to_cpu(cfg)
    assert 'learns more in the same time' in one and 'SyncBN' in synced
    assert cfg.model.backbone.norm_cfg.type == 'BN'
    assert [h.norm_cfg.type for h in cfg.model.heads] == ['BN', 'BN']
    assert 'sync_bn' not in cfg
    assert cfg.model_wrapper_cfg.device_ids is None
    assert cfg.model_wrapper_cfg.find_unused_parameters
    assert adapt_to_cpu(cfg) == [one]


@no_gpu
def test_mixed_precision_without_gpu():
    optim = dict(type=AmpOptimWrapper, loss_scale='dynamic', dtype='bfloat16')
    cfg = Config(dict(model=dict(), optim_wrapper=optim))
    note, = adapt_to_cpu(cfg)
    assert 'float32' in note
    assert cfg.optim_wrapper == dict(type='OptimWrapper')
    assert cfg.get('model_wrapper_cfg') is None
