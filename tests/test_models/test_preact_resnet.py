# Copyright (c) mmfishnet authors. All rights reserved.
import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from fish import fill_norms
from mmfishnet.models import PreActResNet


# As in "Identity Mappings in Deep Residual Networks", where a block's message
# and its shortcut share one norm; here the shortcut has its own, as FishNet's.
@pytest.mark.parametrize('depth, params', [(50, 25_549_480),
                                           (101, 44_541_608)])
def test_parameters(depth, params):
    with torch.device('meta'):
        model = nn.Sequential(PreActResNet(depth), nn.Linear(2048, 1000))
    own_norms = 2 * (64 + 256 + 512 + 1024)
    assert sum(p.numel() for p in model.parameters()) == params + own_norms


def test_same_features_as_an_independent_one():
    preresnet = pytest.importorskip('pytorchcv.models.preresnet')
    torch.manual_seed(0)
    theirs = preresnet.preresnet50b().double().eval()
    fill_norms(theirs, 0.1)
    ours = PreActResNet(50, out_indices=(0, 3)).double().eval()

    source = theirs.features
    pairs = {ours.stem[0]: source.init_block.conv,
             ours.stem[1]: source.init_block.bn,
             ours.final[0]: source.post_activ.bn}
    for i in range(1, 5):
        for block, unit in zip(
                getattr(ours, f'stage{i}'),
                getattr(source, f'stage{i}')):
            for k in (1, 2, 3):
                conv = getattr(unit.body, f'conv{k}')
                pairs[getattr(block, f'norm{k}')] = conv.bn
                pairs[getattr(block, f'conv{k}')] = conv.conv
            if unit.resize_identity:
                pairs[block.shortcut[0]] = unit.body.conv1.bn
                pairs[block.shortcut[2]] = unit.identity_conv
    assert len(pairs) == sum(1 for m in ours.modules()
                             if isinstance(m, (nn.Conv2d, nn.BatchNorm2d)))
    for target, module in pairs.items():
        target.load_state_dict(module.state_dict())

    images = torch.randn(1, 3, 64, 96, dtype=torch.double)
    with torch.no_grad():
        first, last = ours(images)
        laid_out = images.contiguous(memory_format=torch.channels_last)
        expected_first = source[:2](laid_out)
        expected_last = source[:6](laid_out)
    torch.testing.assert_close(first, expected_first, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(last, expected_last, rtol=1e-12, atol=1e-12)


def test_openmmlab_arguments():
    model = MODELS.build(
        dict(
            type='PreActResNet',
            depth=50,
            out_indices=(1, 2),
            frozen_stages=1,
            norm_eval=True,
            with_cp=True)).train()
    trained = {
        name.split('.')[0]
        for name, param in model.named_parameters() if param.requires_grad
    }
    assert trained == {'stage2', 'stage3'}
    assert not any(m.training for m in model.modules()
                   if isinstance(m, nn.BatchNorm2d))
    features = model(torch.rand(2, 3, 64, 64))
    assert [tuple(f.shape) for f in features] == [(2, 512, 8, 8),
                                                  (2, 1024, 4, 4)]
    sum(f.square().mean() for f in features).backward()
    assert all((param.grad is not None) == param.requires_grad
               for param in model.parameters())


@pytest.mark.parametrize('kwargs, message', [
    (dict(depth=18), r'depth=18 .* \[50, 101\]'),
    (dict(out_indices=(4, )), r'out_indices=4 .* \[0, 1, 2, 3\]'),
    (dict(out_indices=(3, 2)), r'out_indices=\(3, 2\) .* ascending'),
    (dict(frozen_stages=5), r'frozen_stages=5 .* \[-1, 0, 1, 2, 3, 4\]'),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PreActResNet(**kwargs)
