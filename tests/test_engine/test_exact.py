# Copyright (c) mmfishnet authors. All rights reserved.
"""Runs that are stopped and go on: equal, bit for bit, to one that never was.

In two processes in test_two_processes.py, by SIGKILL in
tests/kill_and_resume.py.
"""
import errno
import os
import random
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseModel
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import distributed as dist
from torch import nn
from torch.utils.data import BatchSampler, DataLoader

from mmfishnet.engine.errors import RunStopped
from mmfishnet.engine.exact import ExactRunner
from mmfishnet.engine.exact.checkpoint import WholeCheckpointHook
from mmfishnet.engine.exact.loops import ExactEpochLoop, _place
from mmfishnet.engine.exact.place import SeedHook
from mmfishnet.engine.exact.resume import find_checkpoint, set_resume


class Data(torch.utils.data.Dataset):
    """Numbers, with augmentation that draws from all three generators."""

    metainfo = dict()
    shift = 0.

    def __len__(self):
        return 16

    def __getitem__(self, i):
        shift = self.shift + random.random() + np.random.rand()
        shift += torch.rand(3)
        return dict(inputs=shift + i, data_samples=Sample(i))


class Sample:

    def __init__(self, i):
        self.img_path = f'{i}.jpg'


class Model(BaseModel):
    """Norm, dropout, and a loss that is as bad as the test says."""

    bad = ()  # iterations

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))
        self.steps = 0

    def forward(self, inputs, data_samples, mode='tensor'):
        y = self.net(torch.stack(inputs))
        if mode == 'loss':
            self.steps += 1
            factor = float('nan') if self.steps in self.bad else 1.
            return dict(loss=factor * y.square().mean())
        return list(y)


class Mean(BaseMetric):

    default_prefix = 'test'

    def process(self, data_batch, data_samples):
        self.results += [y.item() for y in data_samples]

    def compute_metrics(self, results):
        return dict(mean=float(np.mean(results)))


class At(Hook):
    """Do something after an iteration of the training or validation."""

    def __init__(self, what, iteration, priority, validating=False):
        self.what, self.iteration, self.priority = what, iteration, priority
        self.validating = validating

    def after_train_iter(self, runner, *args, **kwargs):
        if not self.validating and runner.iter == self.iteration:
            self.what()

    def after_val_iter(self, runner, *args, **kwargs):
        if self.validating and runner.iter == self.iteration:
            self.what()


def kill():
    raise KeyboardInterrupt


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def train(work_dir, *hooks, by_epoch=True, workers=0, lr=0.01, loop=None,
          batches=None, kind='CheckpointHook', level='WARNING',
          warm_up=9, **checkpoint):
    cfg = Config(
        dict(
            work_dir=str(work_dir),
            train_cfg=dict(by_epoch=True, max_epochs=3) if by_epoch else dict(
                by_epoch=False, max_iters=24, val_interval=8),
            val_cfg=dict(),
            val_evaluator=dict(type=Mean),
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=lr, momentum=0.9)),
            param_scheduler=[
                dict(type='LinearLR', start_factor=.1, by_epoch=False,
                     end=warm_up),
                dict(type='CosineAnnealingLR', T_max=24, by_epoch=False)
            ],
            default_hooks=dict(
                checkpoint={
                    **dict(type=kind, by_epoch=by_epoch,
                           interval=1 if by_epoch else 5), **checkpoint
                }),
            custom_hooks=[dict(type='EMAHook', momentum=0.1)],
            randomness=dict(seed=2),
            log_level=level,
            experiment_name=os.urandom(8).hex()))
    if loop:
        cfg.train_cfg = dict(type=loop, max_epochs=3)
    set_resume(cfg, 'auto')
    loader = dict(
        dataset=dict(type=Data),
        batch_size=2,
        num_workers=workers,
        sampler=dict(type='DefaultSampler', shuffle=True))
    runner = ExactRunner(
        model=dict(type=Model),
        train_dataloader=dict(
            loader,
            batch_sampler=batches and dict(type=batches, drop_last=False)),
        val_dataloader=dict(loader, num_workers=0),
        launcher='pytorch' if dist.is_initialized() else 'none',
        cfg=Config(dict(cfg, model_wrapper_cfg=dict(
            type='MMDistributedDataParallel', device_ids=None,
            broadcast_buffers=False))),
        **cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


def left(folder):
    """Names and contents of the checkpoints of a run."""
    return {
        path.name: torch.load(path, weights_only=False)
        for path in folder.glob('*.pth')
    }


def assert_equal(a, b, keys=('state_dict', 'ema_state_dict', 'optimizer')):
    assert a.keys() == b.keys()
    for name in a:
        best, wanted = (c[name]['message_hub']['runtime_info'].get(
            'best_score') for c in (a, b))
        assert best == wanted
        for key in keys:
            if key not in a[name] and key not in b[name]:
                continue  # the best checkpoint has no optimizer
            torch.testing.assert_close(
                a[name][key], b[name][key], rtol=0, atol=0)


@pytest.fixture(scope='module', params=[True, False], ids=['epochs', 'iters'])
def whole(request, tmp_path_factory):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp('whole')
    options = dict(
        by_epoch=request.param,
        max_keep_ckpts=1,
        save_best='auto',
        rule='greater')
    train(folder, **options)
    return left(folder), options


def test_workers_make_no_difference(whole, tmp_path):
    expected, options = whole
    train(tmp_path, workers=2, **options)
    assert_equal(left(tmp_path), expected)


def test_no_two_steps_draw_the_same(tmp_path):
    """Nor two samples, in all epochs."""
    class Draw(Hook):
        priority = 'VERY_LOW'
        steps, samples = [], []

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            self.steps += [torch.rand(1).item()]
            self.samples += [x[0].item() % 1 for x in data_batch['inputs']]

    train(tmp_path, Draw())
    assert len(Draw.steps) == len(set(Draw.steps)) == 24
    assert len(Draw.samples) == len(set(Draw.samples)) == 48


def test_what_hooks_see_is_what_the_config_describes(tmp_path):
    class Look(Hook):

        def before_train(self, runner):
            self.loader = runner.train_dataloader

        def before_train_epoch(self, runner):
            assert runner.train_loop.dataloader is self.loader
            # As of a config without our runner.
            assert type(self.loader.dataset) is Data
            assert type(self.loader.sampler) is DefaultSampler
            assert type(self.loader) is DataLoader
            assert self.loader.batch_size == 2
            assert isinstance(self.loader.batch_sampler, BatchSampler)
            assert self.loader.batch_sampler.sampler is self.loader.sampler
            if runner.epoch == 2:  # a switch takes effect
                self.loader.dataset.shift = 1000.

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            assert (data_batch['inputs'][0] > 900).all() == (
                runner.epoch == 2)

    train(tmp_path, Look())


class OwnLoop(EpochBasedTrainLoop):
    pass


class OwnBatches(BatchSampler):

    def __iter__(self):
        for batch in super().__iter__():
            yield np.array(batch)  # no list


@pytest.mark.parametrize('options, said', [
    (dict(loop=OwnLoop), 'OwnLoop is no loop of MMEngine'),
    (dict(batches=OwnBatches), 'no lists of indices'),
    (dict(kind=CheckpointHook), ''),
])
def test_what_is_not_known_runs_as_it_is(tmp_path, options, said):
    """And a hook that saves, in the first process alone, as it likes."""
    class Save(Hook):

        def after_train_epoch(self, runner):
            runner.save_checkpoint(str(tmp_path), 'mine.pth')

    runner = train(tmp_path, Save(), level='INFO', **options)
    assert runner.iter == 24
    log, = tmp_path.glob('*/*.log')
    assert not said or log.read_text().count(said) == 1
    assert {'mine.pth', 'epoch_3.pth'} <= left(tmp_path).keys()
    assert type(runner.train_loop) is options.get('loop', ExactEpochLoop)
    hook, = (h for h in runner.hooks if isinstance(h, CheckpointHook))
    assert type(hook) is WholeCheckpointHook


def test_loader_without_batches_is_named():
    said = []
    _place(SimpleNamespace(
        dataloader=DataLoader(Data(), batch_size=None),
        runner=SimpleNamespace(seed=0, logger=SimpleNamespace(
            info=said.append))))
    assert 'no lists of indices' in said[0]


# Iterations 8 and 16 end an epoch, or are followed by a validation.
@pytest.mark.parametrize('iteration', [0, 7, 8, 14, 22, 23])
@pytest.mark.parametrize('how', [kill, terminate])
def test_stopped_run_ends_the_same(whole, tmp_path, iteration, how):
    expected, options = whole
    # After the schedulers; after a checkpoint; while it validates.
    stops = dict(
        before=At(how, iteration, 75),
        after=At(how, iteration, 95),
        validating=At(how, iteration + 1, 75, validating=True))
    for name, stop in stops.items():
        if name == 'validating' and iteration not in (7, 23):
            continue
        folder = tmp_path / name
        try:
            train(folder, stop, **options)
        except KeyboardInterrupt:
            pass
        except RunStopped as error:
            assert error.status == 143 and 'SIGTERM' in str(error)
            last, _ = find_checkpoint(folder)
            assert last in str(error)
        else:
            assert how is terminate and iteration == 23  # it was through
        train(folder, **options)
        assert [*folder.glob('*.part')] == []
        assert_equal(left(folder), expected)


def test_full_disk_costs_no_older_checkpoint(tmp_path, monkeypatch):
    def save(runner, out_dir, filename, *args, **kwargs):
        if filename.startswith('epoch_2'):
            (tmp_path / filename).write_bytes(b'half of it')
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(runner, out_dir, filename, *args, **kwargs)

    original = Runner.save_checkpoint
    monkeypatch.setattr(Runner, 'save_checkpoint', save)
    with pytest.raises(RunStopped, match='(?s)epoch_2.*No space left'):
        train(tmp_path, max_keep_ckpts=1)
    assert [path.name for path in tmp_path.glob('*.p*th*')] == ['epoch_1.pth']
    assert find_checkpoint(tmp_path)[0] == str(tmp_path / 'epoch_1.pth')


def test_older_checkpoint_is_there_until_the_newer_is(tmp_path):
    class Watch(Hook):
        seen = []

        def before_save_checkpoint(self, runner, checkpoint):
            self.seen += [sorted(p.name for p in tmp_path.glob('*.pth'))]

    train(tmp_path, Watch(), max_keep_ckpts=1)
    assert Watch.seen == [[], ['epoch_1.pth'], ['epoch_2.pth']]
    assert list(left(tmp_path)) == ['epoch_3.pth']


def test_lost_loss_stops_before_a_checkpoint_is_spoilt(tmp_path, monkeypatch):
    monkeypatch.setattr(Model, 'bad', (12, ))
    with pytest.raises(RunStopped) as error:
        train(tmp_path)
    message = str(error.value)
    assert 'iteration 12 (epoch 2)' in message
    assert message.count('.jpg') == 2
    assert f'{tmp_path}/epoch_1.pth' in message
    assert list(left(tmp_path)) == ['epoch_1.pth']


def test_resuming_says_whose_settings_hold(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, At(kill, 10, 75))
    runner = train(tmp_path, lr=0.5, warm_up=5)
    group, = runner.optim_wrapper.param_groups
    assert group['initial_lr'] == 0.01
    assert runner.param_schedulers[0].end == 9
    # Two runs that start in one second share a log.
    logs = ''.join(log.read_text() for log in tmp_path.glob('*/*.log'))
    assert logs.count('lr is 0.01, the config says 0.5') == 1
    assert logs.count('param_scheduler[0].end is 9, the config says 5') == 1


def test_a_validation_is_seeded_by_its_place():
    """And by no other: what a step or the next one draws is different."""
    def drawn(seed, iteration):
        seed(SimpleNamespace(seed=3, iter=iteration, cfg={}))
        return (random.random(), float(np.random.rand()),
                float(torch.rand(1)))

    hook = SeedHook()
    places = [(hook.before_val_epoch, 8), (hook.before_val_epoch, 16), (
        lambda runner: hook.before_train_iter(runner, 0), 8)]
    once, again = ([drawn(*place) for place in places] for _ in range(2))
    assert once == again
    assert all(len(set(column)) == 3 for column in zip(*once))
