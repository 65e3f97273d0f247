# Copyright (c) mmfishnet authors. All rights reserved.
"""MMEngine's runner, for runs that are killed and go on exactly."""
from __future__ import annotations

import inspect
import os.path as osp
from contextlib import suppress
from pathlib import Path

import torch
from mmengine import dist
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn

from ...kinds import find_class
from ...lengths import length_of
from ...whole_file import whole_file
from ...work_dir import STOPPED
from ..errors import RunStopped
from .checkpoint import WholeCheckpointHook
from .loops import ExactEpochLoop, ExactIterLoop
from .place import SeedHook
from .stop import StopHook

# Says after which iteration a run was validated last.
_VALIDATED = 'last_validation'
_LOOPS = {
    EpochBasedTrainLoop: ExactEpochLoop,
    IterBasedTrainLoop: ExactIterLoop
}


class ExactRunner(Runner):
    """Runner whose runs can be killed at any moment and go on exactly.

    What it changes is listed in :mod:`mmfishnet.engine.exact`. The config
    needs no change: MMEngine's own loops and checkpoint hook are replaced by
    subclasses when they are built.

    Args:
        *args: As of :class:`mmengine.runner.Runner`.
        **kwargs: As of :class:`mmengine.runner.Runner`.
    """

    averaged_at = own_statistics = None

    def __init__(self, *args, **kwargs) -> None:
        self.saved = {}  # the last checkpoint, by iterations done
        super().__init__(*args, **kwargs)

    def train(self) -> nn.Module:
        """Train, and listen to SIGTERM meanwhile."""
        loop = self.train_loop
        if not isinstance(loop, tuple(_LOOPS.values())):
            if loop is not None:
                self.logger.info(
                    f'{type(loop).__name__} is no loop of MMEngine: it runs '
                    'as it is, and a run that is killed goes on as '
                    "MMEngine's do.")
            return super().train()
        stop_hook = StopHook()
        for hook in (SeedHook(), PlaceHook(), stop_hook):
            self.register_hook(hook)
        with stop_hook.listening():
            return super().train()

    def build_train_loop(self, loop):
        """As MMEngine's, with loops that can begin in an epoch."""
        if isinstance(loop, dict):
            loop = dict(loop)
            if 'type' not in loop and 'by_epoch' in loop:
                loop['type'] = (
                    EpochBasedTrainLoop
                    if loop.pop('by_epoch') else IterBasedTrainLoop)
            kind = find_class(LOOPS, loop)
            if kind in _LOOPS:
                loop['type'] = _LOOPS[kind]
        return super().build_train_loop(loop)

    def register_hook(self, hook, priority=None) -> None:
        """As MMEngine's, with a checkpoint hook that loses nothing."""
        if isinstance(hook, dict) and (
                find_class(HOOKS, hook) is CheckpointHook):
            hook = dict(hook, type=WholeCheckpointHook)
        super().register_hook(hook, priority)

    def set_randomness(self, *args, **kwargs) -> None:
        """As MMEngine's, and the config names the seed that was drawn."""
        super().set_randomness(*args, **kwargs)
        self.cfg.randomness = dict(
            self.cfg.get('randomness') or {}, seed=self.seed)

    def dump_config(self) -> None:
        """Write the config of this run to its work directory.

        Other tools can start from it, in one process, and draw the same.
        """
        launcher, self.cfg.launcher = self.cfg.get('launcher'), 'none'
        super().dump_config()
        self.cfg.launcher = launcher

    def average_statistics(self, iteration: int) -> None:
        """Average what each process has as running statistics of norms.

        All processes have to call it.

        Args:
            iteration (int): Iterations done. It is averaged once after each.
        """
        if self.world_size == 1 or iteration == self.averaged_at:
            return
        self.averaged_at = iteration
        averages = [hook.ema_model for hook in self.hooks
                    if isinstance(hook, EMAHook)]
        for model in [self.model, *averages]:
            for buffer in _statistics(model):
                dist.all_reduce(buffer, op='mean')

    def save_checkpoint(self, out_dir: str, filename: str, *args,
                        **kwargs) -> None:
        """Save a checkpoint that appears whole or not at all.

        Args:
            out_dir (str): Folder.
            filename (str): Name of the file.
            *args: As of MMEngine's runner.
            **kwargs: As of MMEngine's runner.

        Raises:
            RunStopped: In the first process, if it could not be written.
        """
        path = osp.join(out_dir, filename)
        iteration = (kwargs.get('meta') or {}).get('iter')
        if iteration is not None and kwargs.get('save_optimizer', True):
            self.saved = {iteration: path}
        if not is_main_process():
            return
        if not osp.isdir(out_dir):  # somewhere else than in a folder here
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        try:
            with whole_file(path) as part:
                super().save_checkpoint(out_dir, osp.relpath(part, out_dir),
                                        *args, **kwargs)
        except OSError as error:
            raise RunStopped(
                f'the checkpoint {path} could not be written: '
                f'{error.strerror or error}. Those from before are still '
                'there. When that is put right, go on from the last one by '
                '--resume.') from error

    def save_stopped(self, meta: dict, together: bool) -> str:
        """Save a checkpoint because the run ends here, and change nothing.

        Args:
            meta (dict): ``epoch`` and ``iter``, as far as they are done.
            together (bool): Whether all processes call this, in a training.
                In a validation their statistics are averaged already.

        Returns:
            str: The checkpoint, a regular one if there is one of this moment.

        Raises:
            RunStopped: If it could not be written.
        """
        path = self.saved.get(meta['iter'])
        if path is None:
            if together and self.world_size > 1:
                self.own_statistics = dist.all_gather_object(
                    [buffer.cpu() for buffer in _statistics(self.model)])
            path = osp.join(self.work_dir, STOPPED)
            self.save_checkpoint(
                self.work_dir, STOPPED, meta=meta, by_epoch=False)
        if is_main_process():
            Path(self.work_dir, 'last_checkpoint').write_text(path)
        return path

    def resume(self, filename: str, *args, **kwargs) -> None:
        """Go on from a checkpoint, and say where its settings are others.

        Args:
            filename (str): The checkpoint.
            *args: As of MMEngine's runner.
            **kwargs: As of MMEngine's runner.
        """
        asked = _settings(self)
        super().resume(filename, *args, **kwargs)
        if osp.dirname(osp.abspath(filename)) == self.work_dir:
            self.saved = {self.iter: filename}
        for hook in self.hooks:
            if isinstance(hook, PlaceHook):
                hook.go_on(self)
        differ = [
            f'{name} is {value}, the config says {asked[name]}'
            for name, value in _settings(self).items()
            if asked.get(name, value) != value
        ]
        if differ:
            self.logger.warning(
                '--resume: the optimizer and the schedule go on as the '
                'checkpoint says, not as the config does: ' +
                '; '.join(differ) + ". To train on by the config's, start "
                'anew from the weights: `--cfg-options load_from='
                f'{filename}` without --resume.')
        if self.iter >= self.max_iters:
            self.logger.info(
                f'--resume: nothing is left to train: {self.iter} of '
                f'{self.max_iters} iterations are done.')


class PlaceHook(Hook):
    """Keep in a checkpoint what MMEngine does not, and take it up again."""

    # After all that a training begins with.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self.loaded = {}
        self.may_be_due = False

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add where in the run this is."""
        loop = runner.train_loop
        checkpoint['mmfishnet'] = dict(
            batches_done=loop.batches_done,
            batches=length_of(loop.dataloader),
            own_statistics=runner.own_statistics)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remember what a checkpoint says."""
        self.loaded = checkpoint.get('mmfishnet', {})

    def go_on(self, runner) -> None:
        """Go to the place at which the loaded checkpoint was saved."""
        loop = runner.train_loop
        done = self.loaded.get('batches_done', 0)
        if done and self.loaded['batches'] != length_of(loop.dataloader):
            runner.logger.warning(
                f'--resume: the checkpoint was saved after {done} of '
                f'{self.loaded["batches"]} steps of an epoch, which now has '
                f'{length_of(loop.dataloader)}: the epoch begins again.')
            done = 0
        self.may_be_due = not done
        loop.first_batch = done
        own = self.loaded.get('own_statistics')
        if own is None:  # they were averaged before it was saved
            runner.averaged_at = runner.iter
        elif len(own) == runner.world_size:
            for buffer, value in zip(
                    _statistics(runner.model), own[runner.rank]):
                buffer.copy_(value)

    def before_train(self, runner) -> None:
        """Do the validation during which the run was killed."""
        if not runner.iter and is_main_process():  # what a run before left
            Path(runner.work_dir, _VALIDATED).unlink(missing_ok=True)
        if (self.may_be_due and runner.val_loop is not None
                and runner.train_loop.validation_is_due()
                and self._last_validation(runner) != str(runner.iter)):
            runner.logger.info('--resume: the validation at this point was '
                               'not finished; it is done now.')
            runner.val_loop.run()

    def before_val(self, runner) -> None:
        """Validate what is, or would be, saved."""
        runner.average_statistics(runner.iter)

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Note that this validation is done."""
        if is_main_process():
            Path(runner.work_dir, _VALIDATED).write_text(str(runner.iter))

    def _last_validation(self, runner) -> str | None:
        # A folder that not all hosts share must not divide the processes.
        done = [None]
        with suppress(OSError):
            done = [Path(runner.work_dir, _VALIDATED).read_text()]
        dist.broadcast_object_list(done)
        return done[0]


def _statistics(model: nn.Module) -> list[torch.Tensor]:
    """Running means and variances of the norms in training."""
    return [
        buffer for module in model.modules()
        if module.training and getattr(module, 'running_mean', None) is not
        None for buffer in (module.running_mean, module.running_var)
    ]


def _settings(runner) -> dict:
    """What the optimizer and the schedulers are set to, by name."""
    optim, schedulers = runner.optim_wrapper, runner.param_schedulers
    if not isinstance(optim, OptimWrapper) or not isinstance(schedulers, list):
        return {}  # of several optimizers
    found = {
        'lr' if key == 'initial_lr' else key: value
        for key, value in optim.param_groups[0].items()
        if key not in ('params', 'lr')
    }
    for i, scheduler in enumerate(schedulers):
        # Its arguments; the rest is its state.
        given = {
            name for cls in inspect.getmro(type(scheduler))
            for name in inspect.signature(cls).parameters
        } - {'optimizer', 'param_name', 'last_step', 'verbose'}
        found.update((f'param_scheduler[{i}].{key}', value) for key, value in
                     scheduler.state_dict().items() if key in given)
    return found
