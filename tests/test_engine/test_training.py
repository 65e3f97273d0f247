# Copyright (c) mmfishnet authors. All rights reserved.
import pytest
from mmengine.device import get_device

from mmfishnet.engine.training import enable_amp, enable_auto_scale_lr

no_gpu = pytest.mark.skipif(get_device() != 'cpu', reason='there is a GPU')


@no_gpu
def test_amp_and_scaling(detection):
    detection.optim_wrapper = dict(type='OptimWrapper')
    assert 'float32' in enable_amp(detection)
    assert detection.optim_wrapper == dict(type='OptimWrapper')
    detection.optim_wrapper.type = 'ApexOptimWrapper'
    with pytest.raises(ValueError, match='ApexOptimWrapper'):
        enable_amp(detection)

    with pytest.raises(ValueError, match='auto_scale_lr.base_batch_size'):
        enable_auto_scale_lr(detection)
    detection.auto_scale_lr = dict(base_batch_size=16)
    enable_auto_scale_lr(detection)
    assert detection.auto_scale_lr.enable
