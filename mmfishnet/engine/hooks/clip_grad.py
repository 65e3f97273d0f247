# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict

from ...registry import HOOKS, register


def wrappers_of(runner) -> list[OptimWrapper]:
    """The optimizer wrappers of a run, of which there may be several."""
    wrapper = runner.optim_wrapper
    return [*wrapper.values()] if isinstance(
        wrapper, OptimWrapperDict) else [wrapper]


@register(HOOKS)
class ClipGradUntilHook(Hook):
    """Clip gradients in the beginning of the training only.

    Section 4.4 clips "in the first 2 epochs to handle the huge gradients
    during the initial training stage". How to clip is said where MMEngine
    says it, in ``optim_wrapper.clip_grad``; this hook says until when. It
    goes by the runner's progress, so a resumed run does the same.

    Args:
        end (int): First epoch (counted from 0) or iteration without
            clipping.
        by_epoch (bool): Whether ``end`` counts epochs or iterations.
            Defaults to True.

    Raises:
        ValueError: If ``end`` is negative or, when training starts, if no
            ``clip_grad`` is set.

    Example:
        >>> optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
        >>> custom_hooks = [dict(type='mmfishnet.ClipGradUntilHook', end=2)]
    """

    def __init__(self, end: int, by_epoch: bool = True) -> None:
        if end < 0:
            raise ValueError(f'ClipGradUntilHook: end={end} should not be '
                             'negative.')
        self.end = end
        self.by_epoch = by_epoch

    def before_train(self, runner) -> None:
        """Remember how each optimizer wrapper clips."""
        self._clips = [(w, w.clip_grad_kwargs) for w in wrappers_of(runner)]
        if not any(clip for _, clip in self._clips):
            raise ValueError(
                'ClipGradUntilHook: optim_wrapper.clip_grad is not set, so '
                'there is nothing to end. Set it, for example to '
                'clip_grad=dict(max_norm=5.0), or remove the hook.')

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Switch clipping on or off for this iteration."""
        progress = runner.epoch if self.by_epoch else runner.iter
        for wrapper, clip in self._clips:
            wrapper.clip_grad_kwargs = clip if progress < self.end else None
