# Copyright (c) mmfishnet authors. All rights reserved.
"""When a run ends before its time, and what the signal does to others."""
import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import AmpOptimWrapper
from torch import nn

from mmfishnet.engine.errors import RunStopped
from mmfishnet.engine.exact import stop
from mmfishnet.engine.exact.stop import StopHook, start_worker

INF, NAN = float('inf'), float('nan')


class Amp(AmpOptimWrapper):
    """Mixed precision, which cannot be built without a GPU."""

    def __init__(self):
        pass

    def should_update(self):
        return True


@pytest.fixture
def runner(tmp_path):
    return SimpleNamespace(
        model=nn.BatchNorm1d(2), work_dir=str(tmp_path), iter=7, epoch=1,
        max_iters=100, save_stopped=lambda meta, together: 'stopped.pth',
        optim_wrapper=SimpleNamespace(should_update=lambda: True))


def step(hook, runner, loss):
    hook.after_train_iter(runner, 0, None, dict(loss=torch.tensor(loss)))


@pytest.mark.parametrize('where', ['weight', 'running_var'])
@pytest.mark.parametrize('loss', [INF, NAN])
def test_lost_loss_stops_when_it_is_in_the_weights(runner, loss, where):
    hook = StopHook()
    for _ in range(10):  # such a step may change nothing
        step(hook, runner, loss)
    getattr(runner.model, where).data[1] = loss
    step(hook, runner, 1.)
    with pytest.raises(RunStopped, match='iteration 8'):
        step(hook, runner, loss)


def test_lost_loss_in_mixed_precision(runner):
    """Five steps in a row, which it left out."""
    runner.optim_wrapper, hook = Amp(), StopHook()
    for loss in (INF, NAN, INF, INF, 1., INF, INF, INF, NAN):
        step(hook, runner, loss)
    with pytest.raises(RunStopped, match='for 5 steps at iteration 8'):
        step(hook, runner, INF)


def test_signal_waits_for_gathered_gradients(runner):
    hook = StopHook()
    with hook.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        runner.optim_wrapper.should_update = lambda: False
        step(hook, runner, 1.)
        runner.optim_wrapper.should_update = lambda: True
        with pytest.raises(RunStopped, match='after iteration 8') as error:
            step(hook, runner, 1.)
    assert error.value.status == 143


def test_no_process_leaves_the_first_one_alone_in_a_validation(
        runner, monkeypatch):
    """It may be waiting for the others' results, and has not saved yet."""
    hook = StopHook()
    hook.signalled, runner.hooks, runner.saved = True, [], {}
    monkeypatch.setattr(stop.dist, 'is_main_process', lambda: False)
    hook.after_val_iter(runner)
    runner.saved = {7: 'epoch_1.pth'}
    with pytest.raises(RunStopped, match='after iteration 7'):
        hook.after_val_iter(runner)


def forked(begin):
    """Fork a process that begins so and sleeps; gives its id and the first
    byte that it wrote, when it sleeps."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            begin(write)
            time.sleep(20)
        finally:
            os._exit(99)
    os.close(write)
    with open(read, 'rb') as said:
        return child, said.read(1)


def test_processes_that_load_data_outlive_the_signal(monkeypatch):
    assert stop.GRACE == 60
    monkeypatch.setattr(stop, 'GRACE', 1)
    hook = StopHook()

    def begin(write):
        start_worker(lambda number: os.write(write, bytes([number])),
                     hook.over, 3)

    with hook.listening():
        child, said = forked(begin)
        assert said == b'\3'  # what the loader itself starts with
        os.kill(child, signal.SIGTERM)
        time.sleep(0.3)
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGALRM
        child, _ = forked(begin)
    os.kill(child, signal.SIGTERM)  # the training is over
    assert os.waitpid(child, 0) == (child, 0)


def test_other_processes_obey_the_signal():
    with StopHook().listening():
        child, _ = forked(lambda write: os.write(write, b'.'))
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM
