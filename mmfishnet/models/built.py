# Copyright (c) mmfishnet authors. All rights reserved.
"""What can be asked of a network that is built, and of its outputs."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def keep_modes(model: nn.Module, train: bool) -> Iterator[None]:
    """Put a model into training or evaluation mode for a while.

    Args:
        model (nn.Module): Every module gets its own mode back.
        train (bool): Training or evaluation.
    """
    modes = {module: module.training for module in model.modules()}
    model.train(train)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def image_channels(model: nn.Module) -> int:
    """Channels of the images that a model takes.

    Args:
        model (nn.Module): Begins with a convolution.

    Returns:
        int: What its first convolution reads.

    Raises:
        ValueError: If it has none.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    raise ValueError(f'{type(model).__name__} has no convolution that would '
                     'tell the channels of its images.')


def find_tensors(output) -> Iterator[Tensor]:
    """The tensors of what a network returns.

    Args:
        output (Tensor | list | tuple | dict): With any of these inside.

    Yields:
        Tensor: In their order.
    """
    if isinstance(output, Tensor):
        yield output
        return
    for item in output.values() if isinstance(output, dict) else output:
        yield from find_tensors(item)


def largest_error(found: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """Largest difference, over the largest value, of any pair of tensors.

    Args:
        found (Sequence[Tensor]): What was computed.
        truth (Sequence[Tensor]): What it should be.

    Returns:
        float: The error; 0 for no tensors at all.
    """
    return max((float((a - b).abs().max() / b.abs().max().clamp(min=1e-300))
                for a, b in zip(found, truth, strict=True)), default=0.0)
