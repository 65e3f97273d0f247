# Copyright (c) mmfishnet authors. All rights reserved.
"""Kill a training again and again, and compare what it ends with.

    python tests/kill_and_resume.py [--kills 60] [--seed 0] [--report FILE]

A small FishNet is trained to the end once, in one process and in two. Then
it is trained again in the same way, but killed: by SIGKILL in any step of the
training, of the validation and in the middle of writing a checkpoint, in one
of the processes or all, or by SIGTERM. It is resumed as ``train.py --resume``
does, and killed again, until it is through. All weights, the optimizer's
state and the best checkpoint have to equal, bit for bit, those of the run
that was never killed.

Everything is imported once; each start is a fork, so that it takes a second.
"""
from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import nn

from fish import TINY
from mmfishnet.engine.build import build_runner
from mmfishnet.engine.cpu import adapt_to_cpu
from mmfishnet.engine.errors import short_errors
from mmfishnet.engine.exact.resume import set_resume
from mmfishnet.engine.launch import explain_lost_peers, leave_job
from mmfishnet.models import FishNet

EPOCHS, IMAGES = 3, 12


@DATASETS.register_module()
class Noise(torch.utils.data.Dataset):
    """Pictures whose augmentation draws from all three generators."""

    metainfo = dict()

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return self.images

    def __getitem__(self, i):
        picture = torch.randn(
            3, 32, 32, generator=torch.Generator().manual_seed(i))
        shift = random.random() + np.random.rand() + torch.randn(3, 32, 32)
        return dict(inputs=picture + 0.1 * shift, data_samples=i % 4)


@MODELS.register_module()
class Classifier(BaseModel):
    """FishNet with batch norms that learn, and dropout."""

    def __init__(self):
        super().__init__()
        self.backbone = FishNet(TINY, out_indices=(3, ))
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(272, 4)

    def forward(self, inputs, data_samples, mode='tensor'):
        feature, = self.backbone(torch.stack(inputs))
        scores = self.fc(self.drop(feature.mean((2, 3))))
        labels = torch.tensor(data_samples)
        if mode == 'loss':
            return dict(loss=nn.functional.cross_entropy(scores, labels))
        return [dict(score=score[label].item())
                for score, label in zip(scores.softmax(1), labels)]


@METRICS.register_module()
class MeanScore(BaseMetric):
    """Mean score of the right class."""

    default_prefix = 'mean'

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(score=float(np.mean([r['score'] for r in results])))


class Tell(Hook):
    """Count what happens, for the process that kills."""

    priority = 'LOWEST'

    def __init__(self, events, what):
        self.events, self.what = events, what

    def _tell(self, what):
        self.what.value = what
        with self.events.get_lock():
            self.events.value += 1

    def before_train_iter(self, runner, *args, **kwargs):
        self._tell(b'training')

    def before_val_iter(self, runner, *args, **kwargs):
        self._tell(b'validation')

    def before_save_checkpoint(self, runner, checkpoint):
        self._tell(b'saving')


def config(work_dir, launcher):
    def loader(workers, shuffle):
        return dict(
            dataset=dict(type='Noise', images=IMAGES), batch_size=2,
            num_workers=workers,
            sampler=dict(type='DefaultSampler', shuffle=shuffle))

    return Config(dict(
        model=dict(type='Classifier'),
        work_dir=str(work_dir),
        train_dataloader=loader(1, True),
        val_dataloader=loader(0, False),
        val_evaluator=dict(type='MeanScore'),
        val_cfg=dict(),
        train_cfg=dict(by_epoch=True, max_epochs=EPOCHS),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.005, momentum=0.9)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5),
            dict(type='CosineAnnealingLR', T_max=EPOCHS)],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', max_keep_ckpts=1,
                            save_best='auto', rule='greater'),
            logger=dict(type='LoggerHook', interval=1)),
        custom_hooks=[dict(type='EMAHook', momentum=0.1)],
        launcher=launcher,
        log_level='WARNING',
        experiment_name=os.urandom(8).hex(),
        randomness=dict(seed=1)))


def train(work_dir, environ, events, what):
    """What tools/train.py does, in a process of its own."""
    os.environ.update(environ)
    torch.set_num_threads(1)
    log = open(f'{work_dir}.log', 'a')
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    cfg = config(work_dir, 'pytorch' if environ else 'none')
    if environ:
        adapt_to_cpu(cfg)
    checkpoint, notes = set_resume(cfg, 'auto')
    runner = build_runner(cfg, notes, checkpoint)
    runner.register_hook(Tell(events, what))
    with short_errors(OSError), explain_lost_peers():
        runner.train()
    del runner
    leave_job()


class Job:
    """A training in one process or two."""

    def __init__(self, work_dir, size):
        context = multiprocessing.get_context('fork')
        self.events = [context.Value('i', 0) for _ in range(size)]
        self.what = [context.Array('c', 16) for _ in range(size)]
        with socket.socket() as sock:
            sock.bind(('127.0.0.1', 0))
            port = str(sock.getsockname()[1])
        self.processes = []
        for rank in range(size):
            environ = {} if size == 1 else dict(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size),
                MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
            self.processes.append(context.Process(
                target=train,
                args=(work_dir, environ, self.events[rank], self.what[rank])))
            self.processes[-1].start()

    def wait_until(self, reached):
        """Wait; gives whether it came to that before the training ended."""
        while not reached():
            if any(process.exitcode is not None
                   for process in self.processes):
                return False
            time.sleep(0.0002)
        return True

    def end(self, limit):
        """Statuses of the processes; those that hang are killed."""
        until = time.monotonic() + limit
        for process in self.processes:
            process.join(max(until - time.monotonic(), 0))
            if process.exitcode is None:
                process.kill()
                process.join()
        return [process.exitcode for process in self.processes]


def kill_once(job, work_dir, draw, left):
    """Kill a job somewhere; gives what it was doing, or None."""
    how = draw.choice(['all', 'all', 'one', 'SIGTERM', 'writing'])
    rank = draw.randrange(len(job.processes))
    if how == 'writing':

        def reached():
            return any(Path(work_dir).glob('*.part')) and draw.random() < 0.5
    else:
        at = draw.randint(1, left)

        def reached():
            return job.events[rank].value >= at

    if not job.wait_until(reached):
        return None
    if how == 'writing':
        doing = 'writing a checkpoint'
    else:
        time.sleep(draw.random() * 0.05)
        doing = job.what[rank].value.decode()
    name = 'SIGTERM' if how == 'SIGTERM' else 'SIGKILL'
    for i, process in enumerate(job.processes):
        if how != 'one' or i == rank:
            os.kill(process.pid, getattr(signal, name))
    return f'{name}, {doing}'


def result(work_dir):
    """All that a run leaves."""
    keys = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    found = {}
    for path in sorted(Path(work_dir).glob('*.pth')):
        saved = torch.load(path, weights_only=False)
        found[path.name] = {key: saved[key] for key in keys if key in saved}
    return found


def difference(a, b, where=''):
    """Where two results differ first, or None."""
    if isinstance(a, (list, tuple)):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if not isinstance(a, dict):
        same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        return None if same else where
    if a.keys() != b.keys():
        return f'{where}: {sorted(a)} and {sorted(b)}'
    found = (difference(a[key], b[key], f'{where}/{key}') for key in a)
    return next(filter(None, found), None)


def kill_and_resume(work_dir, size, draw, events):
    """Train, kill and resume until the training is through.

    Returns:
        tuple[list[str], str | None]: What was killed, and the statuses of the
        processes if they are not 0 at the end.
    """
    killed = []
    for attempt in range(20):
        job = Job(work_dir, size)
        # At last it may end.
        did = attempt < 6 and kill_once(job, work_dir, draw, events)
        statuses = job.end(30 if did else 120)
        if did:
            killed.append(f'{size} process{"es" * (size > 1)}, {did}')
            print(killed[-1], statuses, flush=True)
        if statuses == [0] * size:
            break
        if not did:
            return killed, f'ended with {statuses}'
    return killed, None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=60)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--report', metavar='FILE')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    draw = random.Random(args.seed)
    folder = Path(tempfile.mkdtemp(prefix='kill_and_resume_'))
    counts = collections.Counter()
    failures, runs, begin = [], 0, time.monotonic()
    for size in (1, 2):
        reference = folder / f'never_killed_{size}'
        job = Job(reference, size)
        assert job.end(600) == [0] * size, reference
        expected = result(reference)
        events = max(event.value for event in job.events)
        until = counts.total() + args.kills // 2
        while counts.total() < until:
            work_dir = folder / f'killed_{size}_{runs}'
            runs += 1
            killed, wrong = kill_and_resume(work_dir, size, draw, events)
            counts.update(killed)
            if not wrong and (at := difference(expected, result(work_dir))):
                wrong = f'{at} differs'
            if wrong:
                failures.append(f'{work_dir}: {wrong}')
                print(failures[-1], flush=True)
            else:
                shutil.rmtree(work_dir)
    report = [
        f'{counts.total()} kills in {runs} runs of {EPOCHS} epochs, '
        f'{time.monotonic() - begin:.0f} s; {runs - len(failures)} runs ended '
        'with the weights, averages, momenta and schedules of the run that '
        'was never killed, bit for bit.', '', '| killed | times |',
        '|---|---|', *(f'| {what} | {n} |'
                       for what, n in sorted(counts.items())), *failures]
    print('\n'.join(report))
    if args.report:
        Path(args.report).write_text('\n'.join(report) + '\n')
    if not failures:
        shutil.rmtree(folder)
    sys.exit(bool(failures))


if __name__ == '__main__':
    main()
