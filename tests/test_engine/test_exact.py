# Copyright (c) mmfishnet authors. All rights reserved.
"""Runs that are stopped and go on: equal, bit for bit, to one that never was.

In two processes in test_two_processes.py, by SIGKILL in
tests/kill_and_resume.py.
"""
import errno
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
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
    """Do something once, after an iteration of the training or validation."""

    def __init__(self, what, iteration, priority, validating=False):
        self.what, self.iteration, self.priority = what, iteration, priority
        self.validating = validating

    def at(self, runner, validating):
        if (runner.iter, validating) == (self.iteration, self.validating):
            self.iteration = None
            self.what()

    def after_train_iter(self, runner, *args, **kwargs):
        self.at(runner, False)

    def after_val_iter(self, runner, *args, **kwargs):
        self.at(runner, True)


def kill():
    raise KeyboardInterrupt


def terminate():
    # To this thread: by os.kill another one may get it, and get to it later.
    signal.raise_signal(signal.SIGTERM)


def train(work_dir, *hooks, by_epoch=True, workers=0, val_workers=0, lr=0.01,
          loop=None, batches=None, kind='CheckpointHook', level='WARNING',
          warm_up=9, **checkpoint):
    loops = dict(by_epoch=True, max_epochs=3) if by_epoch else dict(
        by_epoch=False, max_iters=24, val_interval=8)
    loader = dict(
        dataset=dict(type=Data),
        batch_size=2,
        sampler=dict(type='DefaultSampler', shuffle=True))
    cfg = Config(
        dict(
            work_dir=str(work_dir),
            model=dict(type=Model),
            train_cfg=dict(type=loop, max_epochs=3) if loop else loops,
            train_dataloader=dict(
                loader, num_workers=workers, batch_sampler=batches and dict(
                    type=batches, drop_last=False)),
            val_cfg=dict(),
            val_dataloader=dict(
                loader, num_workers=val_workers,
                persistent_workers=val_workers > 0),
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
            launcher='pytorch' if dist.is_initialized() else 'none',
            model_wrapper_cfg=dict(
                type='MMDistributedDataParallel', device_ids=None,
                broadcast_buffers=False),
            log_level=level,
            experiment_name=os.urandom(8).hex()))
    set_resume(cfg, 'auto')
    runner = ExactRunner.from_cfg(cfg)
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


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        infos = [c[name]['message_hub']['runtime_info'] for c in (a, b)]
        assert infos[0].get('best_score') == infos[1].get('best_score')
        for key in ('state_dict', 'ema_state_dict', 'optimizer'):
            # The best checkpoint has no optimizer.
            torch.testing.assert_close(
                a[name].get(key, 0), b[name].get(key, 0), rtol=0, atol=0)


class Watch(Hook):
    """What steps and samples are drawn by, and what is there at each save."""

    def __init__(self):
        self.steps, self.samples, self.there = [], [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.steps += [torch.initial_seed()]
        self.samples += [x[0].item() % 1 for x in data_batch['inputs']]

    def before_save_checkpoint(self, runner, checkpoint):
        self.there += [{path.name[:4] for path in
                        Path(runner.work_dir).glob('*.pth')}]


@pytest.fixture(scope='module', params=[True, False], ids=['epochs', 'iters'])
def whole(request, tmp_path_factory):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp('whole')
    options = dict(
        by_epoch=request.param,
        max_keep_ckpts=1,
        save_best='auto',
        rule='greater')
    watch = Watch()
    train(folder, watch, **options)
    return left(folder), options, watch


def test_run_that_is_not_stopped(whole, tmp_path):
    """No two steps or samples draw the same, an older or best checkpoint is
    there until the newer is, and workers make no difference."""
    expected, options, watch = whole
    assert len(watch.steps) == len(set(watch.steps)) == 24
    assert len(watch.samples) == len(set(watch.samples)) == 48
    name = 'epoc' if options['by_epoch'] else 'iter'
    assert len(expected) == 2 and len(watch.there) > 3
    assert all(name in there for there in watch.there[1:])
    first = next(i for i, there in enumerate(watch.there) if 'best' in there)
    assert all('best' in there for there in watch.there[first:])
    train(tmp_path, workers=2, **options)
    assert_equal(left(tmp_path), expected)


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
    (dict(batches=OwnBatches, kind=CheckpointHook), 'no lists of indices'),
])
def test_what_is_not_known_runs_as_it_is(tmp_path, options, said):
    """And a hook that saves, in the first process alone, as it likes."""
    class Save(Hook):

        def after_train_epoch(self, runner):
            runner.save_checkpoint(str(tmp_path), 'mine.pth')

    runner = train(tmp_path, Save(), level='INFO', **options)
    assert runner.iter == 24
    log, = tmp_path.glob('*/*.log')
    assert log.read_text().count(said) == 1
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


# After the schedulers (75), after a checkpoint (95), or while it validates,
# which is after the iterations 7, 15 and 23.
STOPS = [(0, 75), (7, 75), (8, 75, True), (12, 95), (15, 95), (22, 75),
         (23, 75), (24, 75, True)]


@pytest.mark.parametrize('how', [kill, terminate])
def test_stopped_run_ends_the_same(whole, tmp_path, how):
    """It is stopped, and goes on, again and again."""
    expected, options, _ = whole
    (tmp_path / 'last_validation').write_text('8')  # of a run before
    done = 0
    for place in STOPS:
        try:
            runner = train(tmp_path, At(how, *place), **options)
        except KeyboardInterrupt:
            done += 1
        except RunStopped as error:
            done += 1
            assert error.status == 143 and 'SIGTERM' in str(error)
            assert find_checkpoint(tmp_path)[0] in str(error)
        else:  # it was through, but for a signal that came too late to matter
            assert how is terminate and place[0] >= 23, place
            assert runner.iter == 24
    assert done >= len(STOPS) - 2
    train(tmp_path, **options)
    assert [*tmp_path.glob('*.part')] == []
    assert_equal(left(tmp_path), expected)


def test_signal_to_all(tmp_path):
    """As a scheduler sends it: those that load data outlive it until there is
    a checkpoint, and no longer."""
    def to_all():
        found.extend({*multiprocessing.active_children()} - before)
        for worker in found:
            os.kill(worker.pid, signal.SIGTERM)
        time.sleep(0.3)
        assert [worker.exitcode for worker in found] == [None] * 2
        terminate()

    before, found = {*multiprocessing.active_children()}, []
    # Those of the validation are there from the first one on.
    with pytest.raises(RunStopped):
        train(tmp_path, At(to_all, 9, 75), workers=1, val_workers=1)
    content = left(tmp_path)['stopped.pth']
    assert content['meta']['iter'] == 10
    for worker in found:
        worker.terminate()  # as Python does at its end
        worker.join(10)
        assert worker.exitcode == 0


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


def test_lost_loss_stops_before_a_checkpoint_is_spoilt(tmp_path, monkeypatch):
    """And whoever goes on with other settings is told whose hold."""
    monkeypatch.setattr(Model, 'bad', (12, ))
    with pytest.raises(RunStopped) as error:
        train(tmp_path)
    message = str(error.value)
    assert 'iteration 12 (epoch 2)' in message
    assert message.count('.jpg') == 2
    assert f'{tmp_path}/epoch_1.pth' in message
    assert list(left(tmp_path)) == ['epoch_1.pth']

    monkeypatch.setattr(Model, 'bad', ())
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
