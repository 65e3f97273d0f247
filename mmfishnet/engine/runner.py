# Copyright (c) mmfishnet authors. All rights reserved.
"""MMEngine's runner, for runs that are killed and go on exactly."""
from __future__ import annotations

import os
import os.path as osp
from contextlib import suppress

import torch
from mmengine import dist
from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from .errors import RunStopped
from .hooks import EmptyResultsHook, StopHook, WholeCheckpointHook
from .loops import EpochLoop, IterLoop
from .randomness import SeedStepHook, start_worker
from .resume import STOPPED

_LOOPS = dict(EpochBasedTrainLoop=EpochLoop, IterBasedTrainLoop=IterLoop)


class ExactRunner(Runner):
    """Runner whose runs can be killed at any moment and go on exactly.

    With MMEngine's own, a resumed run differs from one that was never
    stopped. Here:

    - what is drawn depends on the seed and the place alone, see
      :mod:`mmfishnet.engine.randomness`;
    - checkpoints appear whole or not at all;
    - a checkpoint in the middle of an epoch holds the place in it;
    - a validation that was not finished is done when the run goes on;
    - with several processes, the running statistics of norms are averaged
      before they are used or saved, so that what is saved is what is
      validated.

    The config needs no change: MMEngine's loops and hooks of the config are
    replaced by subclasses of them.

    Args:
        *args: As of :class:`mmengine.runner.Runner`.
        **kwargs: As of :class:`mmengine.runner.Runner`.
    """

    def __init__(self, *args, **kwargs) -> None:
        self.averaged_at = self.own_statistics = None
        self.saved = {}  # the last checkpoint, by iterations done
        super().__init__(*args, **kwargs)
        self.register_hook(SeedStepHook())
        self.register_hook(_PlaceHook())
        self.stop_hook = StopHook()
        self.register_hook(self.stop_hook)
        self.register_hook(EmptyResultsHook())

    def train(self) -> nn.Module:
        """Train, and listen to SIGTERM meanwhile."""
        with self.stop_hook.listening():
            return super().train()

    @staticmethod
    def build_dataloader(dataloader: DataLoader | dict,
                         seed: int | None = None,
                         diff_rank_seed: bool = False) -> DataLoader:
        """As MMEngine's, with workers that a scheduler's signal leaves."""
        if isinstance(dataloader, dict) and seed is not None:
            dataloader = dict(dataloader)
            dataloader.setdefault(
                'worker_init_fn',
                dict(
                    type=start_worker,
                    num_workers=dataloader.get('num_workers', 0),
                    rank=dist.get_rank(),
                    seed=seed))
        return Runner.build_dataloader(dataloader, seed, diff_rank_seed)

    def build_train_loop(self, loop):
        """As MMEngine's, with loops that can begin in an epoch."""
        if isinstance(loop, dict):
            loop = dict(loop)
            if 'type' not in loop and 'by_epoch' in loop:
                loop['type'] = ('EpochBasedTrainLoop' if loop.pop('by_epoch')
                                else 'IterBasedTrainLoop')
            kind = loop.get('type')
            name = kind if isinstance(kind, str) else getattr(
                kind, '__name__', '')
            loop['type'] = _LOOPS.get(name.removeprefix('mmengine.'), kind)
        return super().build_train_loop(loop)

    def register_hook(self, hook, priority=None) -> None:
        """As MMEngine's, with a checkpoint hook that loses nothing."""
        if isinstance(hook, dict) and hook.get('type') == 'CheckpointHook':
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
        self.cfg.launcher = 'none'
        super().dump_config()

    def average_statistics(self, iteration: int) -> None:
        """Average what each process has as running statistics of norms.

        Args:
            iteration (int): Iterations done; once is enough after each.
        """
        if self.averaged_at == iteration or self.world_size == 1:
            return
        self.averaged_at = iteration
        for model in [self.model] + [
                hook.ema_model
                for hook in self.hooks if isinstance(hook, EMAHook)
        ]:
            for buffer in _statistics(model):
                dist.all_reduce(buffer, op='mean')

    def save_checkpoint(self, out_dir: str, filename: str, *args,
                        **kwargs) -> None:
        """Save a checkpoint that appears whole or not at all.

        All processes have to call it.

        Args:
            out_dir (str): Folder.
            filename (str): Name of the file.
            *args: As of MMEngine's runner.
            **kwargs: As of MMEngine's runner.

        Raises:
            RunStopped: If it could not be written.
        """
        self.average_statistics(kwargs['meta']['iter'])
        failure = [self._save_whole(out_dir, filename, *args, **kwargs)]
        dist.broadcast_object_list(failure)
        if failure[0]:
            raise RunStopped(failure[0])
        if kwargs.get('save_optimizer', True):  # not the best so far
            self.saved = {
                kwargs['meta']['iter']: osp.join(out_dir, filename)
            }

    def save_stopped(self, meta: dict, together: bool = True) -> None:
        """Save a checkpoint because the run ends here, and change nothing.

        Args:
            meta (dict): ``epoch`` and ``iter``, as far as they are done.
            together (bool): Whether all processes call this; otherwise their
                statistics have to be averaged already. Defaults to True.

        Raises:
            RunStopped: If it could not be written.
        """
        if together and self.world_size > 1:
            self.own_statistics = dist.all_gather_object(
                [buffer.cpu() for buffer in _statistics(self.model)])
        failure = self._save_whole(
            self.work_dir, STOPPED, meta=meta, by_epoch=False)
        if failure:
            raise RunStopped(failure)

    def _save_whole(self, out_dir, filename, *args, **kwargs) -> str | None:
        """Save in the first process; gives what went wrong."""
        if not is_main_process():
            return None
        if not osp.isdir(out_dir):  # somewhere else than in a folder here
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return None
        path = osp.join(out_dir, filename)
        try:
            super().save_checkpoint(out_dir, f'{filename}.part', *args,
                                    **kwargs)
            _to_disk(f'{path}.part')
            os.replace(f'{path}.part', path)
            _to_disk(out_dir)
        except OSError as error:
            with suppress(OSError):
                os.remove(f'{path}.part')
            return (f'the checkpoint {path} could not be written: '
                    f'{error.strerror or error}. Those from before are still '
                    'there. When that is put right, go on from the last one '
                    'by --resume.')
        return None

    def resume(self, filename: str, *args, **kwargs) -> None:
        """Go on from a checkpoint.

        Args:
            filename (str): The checkpoint.
            *args: As of MMEngine's runner.
            **kwargs: As of MMEngine's runner.
        """
        asked = _settings(self)
        super().resume(filename, *args, **kwargs)
        for hook in self.hooks:
            if isinstance(hook, _PlaceHook):
                hook.go_on(self)
        held = _settings(self)
        differ = [
            f'{name} is {held[name]}, the config says {asked[name]}'
            for name in held if name in asked and held[name] != asked[name]
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


class _PlaceHook(Hook):
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
            batches=len(loop.dataloader),
            own_statistics=runner.own_statistics)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remember what a checkpoint says."""
        self.loaded = checkpoint.get('mmfishnet', {})

    def go_on(self, runner) -> None:
        """Go to the place at which the loaded checkpoint was saved."""
        loop = runner.train_loop
        done = self.loaded.get('batches_done', 0)
        if done and self.loaded['batches'] != len(loop.dataloader):
            runner.logger.warning(
                f'--resume: the checkpoint was saved after {done} of '
                f'{self.loaded["batches"]} steps of an epoch, which now has '
                f'{len(loop.dataloader)}: the epoch begins again.')
            done = 0
        self.may_be_due = not done
        loop.first_batch = done
        own = self.loaded.get('own_statistics')
        if own is None:
            runner.averaged_at = runner.iter
        elif len(own) == runner.world_size:
            for buffer, value in zip(
                    _statistics(runner.model), own[runner.rank]):
                buffer.copy_(value)

    def before_train(self, runner) -> None:
        """Do the validation during which the run was killed."""
        if (self.may_be_due and runner.val_loop is not None
                and runner.train_loop.validation_is_due()
                and runner.iter != self._last_validation(runner)):
            runner.logger.info('--resume: the validation at this point was '
                               'not finished; it is done now.')
            runner.val_loop.run()

    def before_val(self, runner) -> None:
        """Validate what is, or would be, saved."""
        runner.average_statistics(runner.iter)

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Note that this validation is done."""
        if is_main_process():
            with open(_validated(runner), 'w') as file:
                file.write(str(runner.iter))

    def _last_validation(self, runner) -> int | None:
        done = None
        with suppress(OSError, ValueError), open(_validated(runner)) as file:
            done = int(file.read())
        # A folder that not all hosts share must not divide the processes.
        said = [done]
        dist.broadcast_object_list(said)
        return said[0]


def _validated(runner) -> str:
    return osp.join(runner.work_dir, 'last_validation')


def _statistics(model: nn.Module) -> list[torch.Tensor]:
    """Running means and variances of the norms in training."""
    return [
        buffer for module in model.modules()
        if module.training and getattr(module, 'running_mean', None) is not
        None for buffer in (module.running_mean, module.running_var)
    ]


def _to_disk(path: str) -> None:
    """Have a file, or what a folder says of its files, written out."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settings(runner) -> dict:
    """What the optimizer and the schedulers are set to, by name."""
    found = {}
    optim = runner.optim_wrapper
    if not isinstance(optim, OptimWrapper) or not isinstance(
            runner.param_schedulers, list):
        return found  # of several optimizers
    for group in optim.param_groups[:1]:
        for key, value in group.items():
            if key not in ('params', 'lr'):
                found['lr' if key == 'initial_lr' else key] = value
    for i, scheduler in enumerate(runner.param_schedulers):
        for key, value in scheduler.state_dict().items():
            if not key.startswith('_') and key not in (
                    'base_values', 'last_step', 'verbose', 'param_name'):
                found[f'param_scheduler[{i}].{key}'] = value
    return found
