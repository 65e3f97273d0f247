# Copyright (c) mmfishnet authors. All rights reserved.
"""Section 4.4 of the paper, number by number, from the built Runner."""
import copy
import math
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import nn

import mmfishnet  # noqa: F401
from mmfishnet.checkpoints import drop_pretrained, use_safe_loading
from mmfishnet.engine.data_root import set_data_root
from schedule import simulate
from table3 import read_finished

CONFIGS = Path(__file__).parents[2] / 'configs'
TINY = Config.fromfile(CONFIGS / '_base_/backbones/tiny.py')
BACKBONES = ('r50', 'x50_32x4d', 'fishnet150')
TABLE3 = [f'{kind}_rcnn_{name}_fpn' for kind in ('mask', 'faster')
          for name in BACKBONES]  # yapf: disable
BEYOND = [f'mask_rcnn_{n}_fpn' for n in ('fishnet99', 'fishnet201',
                                         'fishnext150')]  # yapf: disable
# Sizes of tiny_coco's images, within 800 and 1333 pixels
TESTED_SIZES = {(800, 960), (667, 1333), (960, 800)}


class StopTraining(Exception):
    pass


@cache
def load(name):
    return Config.fromfile(CONFIGS / f'{name}.py')


def small(name, data_root, work_dir):
    """The config with what a test has to change: data, and no weights."""
    cfg = copy.deepcopy(load(name))
    set_data_root(cfg, str(data_root))
    drop_pretrained(cfg.model)
    for loader in (cfg.train_dataloader, cfg.val_dataloader,
                   cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.work_dir = str(work_dir)
    cfg.visualizer.name = str(work_dir)  # one each, in the same process
    cfg.log_level = 'ERROR'
    cfg.default_hooks.checkpoint.interval = -1
    return cfg


@pytest.mark.parametrize('name', TABLE3 + BEYOND)
def test_only_the_backbone_differs(name):
    ours = load(f'{name.split("_")[0]}_rcnn_fishnet150_fpn').to_dict()
    other = load(name).to_dict()
    for cfg in (ours, other):
        backbone = cfg['model'].pop('backbone')
        assert backbone == cfg.pop('backbone')
        assert cfg['model']['neck'].pop('in_channels') == cfg.pop(
            'backbone_channels')
    assert other == ours


@pytest.mark.parametrize('name', ['mask_rcnn_' + n + '_fpn' for n in BACKBONES]
                         + BEYOND)  # yapf: disable
def test_what_is_trained(name):
    cfg = copy.deepcopy(load(name))
    drop_pretrained(cfg.model)
    init_default_scope('mmdet')
    with torch.device('meta'):
        model = MODELS.build(cfg.model).train()
        features = model.extract_feat(torch.rand(1, 3, 64, 64))
    norms = {
        f'{path}.{key}'
        for path, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for key, _ in module.named_parameters()
    }
    stem = {
        key
        for key, _ in model.named_parameters()
        if key.startswith(('backbone.stem.', 'backbone.conv1.'))
    }
    frozen = {key for key, p in model.named_parameters()
              if not p.requires_grad}  # yapf: disable
    assert norms and stem
    assert frozen == norms | stem
    assert not any(module.training for module in model.modules()
                   if isinstance(module, nn.BatchNorm2d))
    assert [f.shape[-1] for f in features] == [16, 8, 4, 2, 1]


def record_steps(runner, steps, stop_after=math.inf):
    """Let a runner train, with a loss of one parameter in place of the model.

    Everything but the forward pass is what a training does: loops, data,
    hooks, schedulers, optimizer. Recorded is what the optimizer sees.
    """
    bias = runner.model.rpn_head.rpn_conv.bias

    def train_step(data, optim_wrapper):
        if len(steps) == stop_after:
            raise StopTraining
        step = dict(
            epoch=runner.epoch,
            sizes=[tuple(x.shape[1:]) for x in data['inputs']],
            flips=[sample.flip for sample in data['data_samples']])

        def before_step(optimizer, *_):
            step['groups'] = [
                {key: group[key] for key in ('lr', 'momentum', 'weight_decay')}
                for group in optimizer.param_groups
            ]  # yapf: disable
            step['norm'] = bias.grad.norm().item()

        handle = optim_wrapper.optimizer.register_step_pre_hook(before_step)
        loss = 1000 * bias.sum()
        optim_wrapper.update_params(loss)
        handle.remove()
        steps.append(step)
        return dict(loss=loss.detach())

    runner.model.train_step = train_step
    try:
        runner.train()
    except StopTraining:
        pass


@pytest.fixture(scope='module')
def steps(tiny_coco, tmp_path_factory):
    """All of a run of 32 epochs that was stopped in the second one, at the
    fifth of its 96 iterations, and resumed from the end of the first."""
    use_safe_loading()  # as tools/train.py: MMEngine alone may refuse the log
    work_dir = tmp_path_factory.mktemp('run')
    steps = []
    for stop_after, resume in ((4, False), (math.inf, True)):
        cfg = small('mask_rcnn_fishnet150_fpn', tiny_coco, work_dir)
        cfg.resume = resume
        # Its forward pass is left out.
        cfg.model.backbone = TINY.tiny_fishnet
        cfg.model.neck.in_channels = TINY.tiny_fishnet_channels
        cfg.default_hooks.checkpoint.interval = 100 if resume else 1
        cfg.default_hooks.checkpoint.save_last = False
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        steps = steps[:3]
        record_steps(Runner.from_cfg(cfg), steps, stop_after)
    assert [step['epoch'] for step in steps] == [i // 3 for i in range(96)]
    return steps


def test_schedule_and_images(steps):
    groups = [step['groups'] for step in steps]
    assert all(len(group) == 1 for group in groups)
    assert {(g['momentum'], g['weight_decay']) for g, in groups} == {
        (0.9, 1e-4)}
    lr = [group['lr'] for group, in groups]
    # From a thousandth, evenly, to the last iteration of the first epoch
    assert lr[:3] == pytest.approx([2e-5, 0.01001, 0.02])
    assert lr[3:60] == pytest.approx([0.02] * 57)
    assert lr[60:84] == pytest.approx([0.002] * 24)
    assert lr[84:] == pytest.approx([0.0002] * 12)

    norms, whole = [step['norm'] for step in steps], 1000 * math.sqrt(256)
    assert norms[:6] == pytest.approx([5.0] * 6, rel=1e-4)
    assert norms[6:] == pytest.approx([whole] * 90)

    assert all(len(step['sizes']) == 1 for step in steps)
    for _, epoch in groupby(steps, lambda step: step['epoch']):
        assert {step['sizes'][0] for step in epoch} == TESTED_SIZES
    assert 0.2 < np.mean([step['flips'] for step in steps]) < 0.8

    # The picture of the schedule shows the same.
    schedule = simulate(load('mask_rcnn_fishnet150_fpn'), epoch_length=3)
    np.testing.assert_allclose(schedule.lr, lr)
    assert np.nan_to_num(schedule.max_norm).tolist() == [5] * 6 + [0] * 90


def test_which_norms_update(tiny_coco, tmp_path):
    """A training on one small image, and its evaluation."""
    cfg = small('mask_rcnn_fishnet150_fpn', tiny_coco, tmp_path)
    cfg.train_cfg.max_epochs = 1
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        for transform in loader.dataset.pipeline:
            if transform.type == 'Resize':
                transform.scale = (96, 96)
    cfg.train_dataloader.dataset.indices = 1
    # One iteration, at the full learning rate
    cfg.param_scheduler = None
    # Random weights are not sure of anything; a score may be exactly 0.
    cfg.model.test_cfg.rcnn.score_thr = -1.
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    before = {k: v.clone() for k, v in runner.model.state_dict().items()}
    runner.train()
    after = runner.model.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    trainable = {k for k, p in runner.model.named_parameters()
                 if p.requires_grad}
    assert any('running_mean' in key for key in before)
    # Neither statistics nor affine of any norm
    assert changed <= trainable
    # Even where no gradient came, there is weight decay on what is not zero.
    assert {k for k in trainable if before[k].any()} <= changed

    assert runner.val_dataloader.batch_sampler.batch_size == 1
    assert runner.cfg.auto_scale_lr.base_batch_size == 16
    # Table 3 reads what this run left.
    run = read_finished(runner.work_dir)
    assert (run.detector, run.backbone) == ('MaskRCNN', 'FishNet-150')
    assert set(run.scores) == {'bbox', 'segm'}
    assert run.source == 'last epoch, 1 of 1'


@pytest.mark.parametrize('name', TABLE3[::3])
def test_images_of_the_evaluation(name, tiny_coco, tmp_path):
    cfg = small(name, tiny_coco, tmp_path)
    init_default_scope('mmdet')
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        dataset = Runner.build_dataloader(loader, seed=0).dataset
        sizes = {tuple(sample['inputs'].shape[1:]) for sample in dataset}
        assert sizes == TESTED_SIZES
