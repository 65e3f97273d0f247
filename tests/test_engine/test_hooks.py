# Copyright (c) mmfishnet authors. All rights reserved.
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner, ValLoop
from torch import nn

from mmfishnet.checkpoints import CheckpointError
from mmfishnet.engine.hooks import (
    ClipGradUntilHook,
    EmptyResultsHook,
    FitCheckHook,
)
from mmfishnet.models import PreActResNet

STEPS = 3  # in an epoch


class Steep(BaseModel):
    """A parameter w whose gradient is 100 everywhere."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, inputs=None, data_samples=None, mode='tensor'):
        return dict(loss=(100 * self.w).sum())


class Watch(Hook):
    """How far w moved in each step: the clipped gradient, at lr=1."""

    def __init__(self):
        self.moves, self.last = [], None

    def before_train_iter(self, runner, *args, **kwargs):
        self.last = runner.model.w.item()

    def after_train_iter(self, runner, *args, **kwargs):
        self.moves.append(round(self.last - runner.model.w.item(), 3))


def train(work_dir, epochs, hook, clip=dict(max_norm=5.0), resume=False):
    watch = Watch()
    runner = Runner(
        model=Steep(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=[0.] * STEPS,
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=1.),
            **(dict(clip_grad=dict(clip)) if clip else {})),
        custom_hooks=[hook, watch],
        default_scope='mmengine',
        experiment_name=f'{work_dir.name}-{epochs}-{resume}',
        resume=resume)
    runner.train()
    return watch.moves


def test_clips_in_the_first_epochs_only(tmp_path):
    moves = train(tmp_path, 4, dict(type='mmfishnet.ClipGradUntilHook', end=2))
    assert moves == [5.] * 2 * STEPS + [100.] * 2 * STEPS


def test_counts_iterations(tmp_path):
    moves = train(
        tmp_path, 2, dict(type='ClipGradUntilHook', end=4, by_epoch=False))
    assert moves == [5.] * 4 + [100.] * 2


@pytest.mark.parametrize('stop, after', [(1, [5.] + [100.]),
                                         (2, [100.]), (3, [])])
def test_survives_resuming(tmp_path, stop, after):
    hook = dict(type='ClipGradUntilHook', end=2)
    train(tmp_path, stop, hook)
    moves = train(tmp_path, 3, hook, resume=True)
    assert moves == [move for move in after for _ in range(STEPS)]


def test_needs_something_to_end(tmp_path):
    with pytest.raises(ValueError, match='clip_grad is not set'):
        train(tmp_path, 1, dict(type='ClipGradUntilHook', end=2), clip=None)
    with pytest.raises(ValueError, match='end=-1'):
        ClipGradUntilHook(end=-1)


def test_nothing_detected_is_zero(tmp_path):
    metrics = pytest.importorskip('mmdet.evaluation')
    coco = metrics.CocoMetric(metric=['bbox', 'segm'])
    said = []

    def runner(metric, loop=ValLoop, evaluator=Evaluator):
        return SimpleNamespace(
            val_loop=loop.__new__(loop),
            val_evaluator=evaluator(metric),
            logger=SimpleNamespace(warning=said.append))

    values = {'coco/bbox_mAP': 0.5}
    EmptyResultsHook().after_val_epoch(runner(coco), values)
    assert values['coco/bbox_mAP'] == 0.5 and values['coco/segm_mAP'] == 0
    assert 'coco/bbox_mAP_50' not in values
    assert values['coco/segm_mAP_l'] == 0 and len(said) == 1

    # What is derived from them reports in its own way.
    class Own(metrics.CocoMetric):
        pass

    class Teachers(ValLoop):
        pass

    class Several(Evaluator):
        pass

    for other in (runner(Own()), runner(coco, Teachers),
                  runner(coco, evaluator=Several)):
        values = {}
        EmptyResultsHook().after_val_epoch(other, values)
        assert values == {}


def test_checkpoint_has_to_fit_the_backbone():
    """MMEngine would warn of what is missing and go on."""
    def build(kind):
        norm = dict(type=kind, requires_grad=True)
        return nn.ModuleDict(dict(
            backbone=PreActResNet((1, 1, 1, 1), norm_cfg=dict(
                norm, **dict(num_groups=32) if kind == 'GN' else {})),
            head=nn.Linear(2, 2)))

    model, other = build('BN'), build('GN')
    runner = SimpleNamespace(
        model=nn.DataParallel(model), cfg=dict(load_from='file.pth'))
    check = FitCheckHook().after_load_checkpoint
    state = model.state_dict()
    check(runner, dict(state_dict={f'module.{k}': state[k] for k in state}))
    # Norms of another kind have weights of the same names.
    with pytest.raises(CheckpointError, match='missing.*running_mean'):
        check(runner, dict(state_dict=other.state_dict()))
    with pytest.raises(CheckpointError, match='no place.*running_mean'):
        check(SimpleNamespace(model=other, cfg={}), dict(state_dict=state))
    # A detector that starts from a classifier: the head is MMEngine's matter.
    del state['head.weight']
    check(runner, state)
    with pytest.raises(CheckpointError, match='head.weight'):
        FitCheckHook(heads=True).after_load_checkpoint(runner, state)
    del state['backbone.stage2.0.conv2.weight']
    with pytest.raises(
            CheckpointError, match='file.pth does not fit the model, Pre.* 1 '
            "of .* are missing: 'backbone.stage2.0.conv2.weight"):
        check(runner, dict(state_dict=state))
    with pytest.raises(
            CheckpointError, match='file.pth holds nothing below backbone., '
            'where the model has its PreActResNet: it holds 2 tensors'):
        check(runner, dict(state_dict=nn.Linear(2, 2).state_dict()))
