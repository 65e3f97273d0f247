# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

from mmengine.hooks import Hook
from torch import Tensor, nn

from ...models.layout import channels_last
from ...registry import HOOKS, register
from ..bare import bare_model


def _is_mmcv_op(module: nn.Module) -> bool:
    return any(
        kind.__module__.startswith('mmcv.ops') for kind in type(module).mro())


def _contiguous(module: nn.Module, args: tuple, kwargs: dict):
    def convert(x):
        return x.contiguous() if isinstance(x, Tensor) else x

    return (tuple(map(convert, args)),
            {name: convert(x) for name, x in kwargs.items()})


def _channels_last(module: nn.Module, args: tuple):
    images, *others = args
    return channels_last(images), *others


def use_channels_last(model: nn.Module) -> nn.Module:
    """Put a detector, classifier or segmenter into channels-last.

    Convolutions then read and write features whose channels lie side by side
    in memory, which CPUs and tensor cores are made for; every value stays.
    On a CPU our backbones do so by themselves, here neck and heads follow.
    The images alone are converted, what follows takes their layout. Weights
    stay as they are: DistributedDataParallel has laid out its buckets by them,
    and with others a resumed run would differ in the last bits.

    MMCV's operators, RoIAlign among them, take any tensor for a contiguous
    one and are silently wrong for others (its issue 2203). What they read is
    converted in front of each.

    Args:
        model (nn.Module): What has a ``backbone``. It is changed in place.

    Returns:
        nn.Module: The model.

    Raises:
        ValueError: If it has no ``backbone``.
    """
    if not isinstance(getattr(model, 'backbone', None), nn.Module):
        raise ValueError(f'{type(model).__name__} has no backbone to which '
                         'channels-last images could be given.')
    for module in model.modules():
        if _is_mmcv_op(module):
            module.register_forward_pre_hook(_contiguous, with_kwargs=True)
    model.backbone.register_forward_pre_hook(_channels_last)
    return model


@register(HOOKS)
class ChannelsLastHook(Hook):
    """Train and test in channels-last, see :func:`use_channels_last`.

    Example:
        >>> custom_hooks = [dict(type='mmfishnet.ChannelsLastHook')]
    """

    # Before EMAHook copies the model and CompileBackboneHook compiles it.
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self._done = False

    def before_run(self, runner) -> None:
        """Convert the model, once in a run."""
        if not self._done:
            use_channels_last(bare_model(runner.model))
            self._done = True
