# Copyright (c) mmfishnet authors. All rights reserved.
"""Channels-last and the compiled backbone change no value."""
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from fish import TINY
from mmfishnet.engine.hooks import (
    ChannelsLastHook,
    CompileBackboneHook,
    compile_in_place,
    use_channels_last,
    why_not_compile,
)
from mmfishnet.models import FishNet
from mmfishnet.models.blocks import Bottleneck, ChannelReduction, URBlock
from mmfishnet.models.layout import open_size, to_fast_layout
from mmfishnet.models.lean import MaxPool2x2

ROOT = Path(__file__).parents[2]
# As COCO's pictures are: landscape, portrait, panorama.
SIZES = (64, 96), (96, 64), (64, 160), (160, 64)


class Model(nn.Module):

    def __init__(self, **kwargs):
        super().__init__()
        self.backbone = FishNet(
            TINY,
            frozen_stages=0,
            norm_eval=True,
            norm_cfg=dict(type='BN', requires_grad=False),
            **kwargs)

    def forward(self, x):
        return self.backbone(x)


def step(model, images):
    model.zero_grad()
    outputs = model(images)
    sum(output.square().mean() for output in outputs).backward()
    grads = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    return [*outputs, *grads]


class Fin(nn.Module):
    """Down and up again: all that makes torch generate code for one size."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.pool = MaxPool2x2()
        self.up = URBlock(
            Bottleneck(16, 8, shortcut=ChannelReduction(2)),
            transfer=Bottleneck(16, 16))

    def forward(self, x):
        x = self.conv(to_fast_layout(open_size(x, 4)))
        return self.up(self.pool(x), x)


def assert_same(model, plain, *size, layout=torch.contiguous_format):
    images = torch.randn(1, 3, *size, dtype=torch.double)
    torch.testing.assert_close(
        step(model, images.contiguous(memory_format=layout)),
        step(plain, images))


@pytest.mark.slow
def test_compiled_backbone():
    """One graph for all sizes, the same values, the same names."""
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    model = Model().double().train()
    plain, names = deepcopy(model), [*model.state_dict()]
    # Nothing is generated; test_distributed.py traces its backward pass, too,
    # and the next test has code generated.
    compile_in_place(model.backbone, backend='eager')
    for size in SIZES:
        assert_same(model, plain, *size)
    assert counters['stats']['unique_graphs'] == 1
    assert [*model.state_dict()] == names
    # EMA's copy, and what is pickled, are plain.
    assert deepcopy(model).backbone._compiled_call_impl is None
    # What the strides do not divide is another graph, with other up-sampling.
    fin = Fin().double()
    plain = deepcopy(fin)
    compile_in_place(fin, backend='eager')
    for size in (64, 96), (50, 97), (97, 50):
        assert_same(fin, plain, *size, layout=torch.channels_last)
    assert not counters['graph_break']


@pytest.mark.slow
def test_code_for_all_sizes():
    """Code is generated once, not once a size.

    The sizes are such that oneDNN, which has another way for small features,
    does not change its mind.
    """
    # Here: it compiles something, which a collection should not.
    problem = why_not_compile()
    if problem:
        pytest.skip(problem)
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    model = Fin()
    plain = deepcopy(model)
    compile_in_place(model)
    for size in ((64, 96), (96, 64), (64, 100), (80, 80), (104, 60)):
        images = torch.randn(1, 3, *size)
        torch.testing.assert_close(
            step(model, images), step(plain, images), rtol=1e-3, atol=1e-4)
    assert counters['stats']['unique_graphs'] == 1


def runner_of(model):
    return SimpleNamespace(model=model, logger=MMLogger.get_current_instance())


def test_compiling_that_does_not_work(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError('no compiler is found')

    monkeypatch.setattr(torch, 'compile', broken)
    warned = []
    runner = runner_of(Model().eval())
    runner.logger = SimpleNamespace(warning=warned.append)
    CompileBackboneHook().before_run(runner)
    assert len(warned) == 1 and 'no compiler is found' in warned[0]
    runner.model(torch.rand(1, 3, 32, 32))


def test_memory_budget():
    config = pytest.importorskip('torch._functorch.config')
    with config.patch(activation_memory_budget=1.0):
        CompileBackboneHook(backend='eager', memory_budget=0.5).before_run(
            runner_of(Model()))
        assert config.activation_memory_budget == 0.5
    assert config.activation_memory_budget == 1.0
    with pytest.raises(ValueError, match='memory_budget=2 '):
        CompileBackboneHook(memory_budget=2)


def test_hooks_act_once():
    model = Model()
    runner = runner_of(model)
    hook = ChannelsLastHook()
    hook.before_run(runner)
    hook.before_run(runner)
    assert len(model.backbone._forward_pre_hooks) == 1
    compiling = CompileBackboneHook(backend='eager')
    compiling.before_run(runner)
    call = model.backbone._compiled_call_impl
    compiling.before_run(runner)
    assert call is not None and model.backbone._compiled_call_impl is call
    for hook in (ChannelsLastHook(), CompileBackboneHook(backend='eager')):
        with pytest.raises(ValueError, match='Linear has no backbone'):
            hook.before_run(runner_of(nn.Linear(1, 1)))


def test_roi_align_takes_channels_last_for_contiguous():
    """The trap: if this fails, MMCV has learnt it and the copies may go."""
    ops = pytest.importorskip('mmcv.ops')
    align = ops.RoIAlign(2, spatial_scale=1.0)
    feature = torch.randn(1, 8, 8, 8)
    rois = torch.tensor([[0, 1., 1., 6., 6.]])
    expected = align(feature, rois)
    last = feature.contiguous(memory_format=torch.channels_last)
    assert not torch.allclose(align(last, rois), expected)

    model = nn.Module()
    model.backbone, model.align = nn.Identity(), align
    use_channels_last(model)
    assert torch.equal(align(last, rois), expected)


def test_mask_rcnn_in_channels_last():
    """Losses, their gradients and what is detected stay what they were."""
    pytest.importorskip('mmdet')
    from mmdet.testing import demo_mm_inputs
    cfg = Config.fromfile(
        ROOT / 'configs/shapes/mask_rcnn_fishnet_shapes.py').model
    # Fixed norms: live ones, of so few pixels, amplify rounding.
    cfg.backbone.update(init_cfg=None, norm_eval=True)
    cfg.test_cfg.rcnn.score_thr = 0.0
    init_default_scope('mmdet')
    model = MODELS.build(cfg)
    model.init_weights()
    last = use_channels_last(deepcopy(model))
    inputs = demo_mm_inputs(
        2, [(3, 64, 96)] * 2, num_items=[4, 3], num_classes=6, with_mask=True,
        use_box_type=True)

    def losses(model):
        torch.manual_seed(0)
        np.random.seed(0)  # the samplers'
        data = model.data_preprocessor(deepcopy(inputs), True)
        found = model.train().loss(data['inputs'], data['data_samples'])
        values = [v for x in found.values()
                  for v in (x if isinstance(x, list) else [x])
                  if v.requires_grad]
        sum(values).backward()
        return values, model.backbone.stem[0].weight.grad

    (found, found_grad), (expected, grad) = losses(last), losses(model)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    # Rounding of some fifty layers; another layout's values would be off by 1.
    assert (found_grad - grad).abs().max() < 1e-2 * grad.abs().max()

    layouts = []
    last.neck.register_forward_hook(
        lambda module, args, levels: layouts.extend(
            level.is_contiguous(memory_format=torch.channels_last)
            for level in levels))
    with torch.no_grad():
        results = [
            m.eval().predict(
                m.data_preprocessor(deepcopy(inputs), False)['inputs'],
                deepcopy(inputs['data_samples'])) for m in (last, model)
        ]
    assert layouts and all(layouts)
    for found, expected in zip(*results):
        found, expected = found.pred_instances, expected.pred_instances
        assert len(expected) > 10
        torch.testing.assert_close(
            found.scores, expected.scores, rtol=1e-3, atol=1e-4)
