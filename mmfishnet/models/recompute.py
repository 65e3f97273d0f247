# Copyright (c) mmfishnet authors. All rights reserved.
"""What ``with_cp`` does: compute once more instead of keeping."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.utils.checkpoint as cp
from torch import Tensor, nn

from .layout import is_compiling


def recompute(module: nn.Module, x: Tensor, with_cp: bool) -> Tensor:
    """Apply a module; with ``with_cp``, keep its input alone.

    Args:
        module (nn.Module): One without randomness.
        x (Tensor): Its input.
        with_cp (bool): Whether to compute it once more in the backward pass
            instead of keeping what is inside.

    Returns:
        Tensor: Its output.
    """
    if not (with_cp and torch.is_grad_enabled()):
        return module(x)
    # What is compiled updates a buffer once by itself.
    contexts = {} if is_compiling() else dict(
        context_fn=lambda: (nullcontext(), _spare_buffers(module)))
    return cp.checkpoint(
        module, x, use_reentrant=False, preserve_rng_state=False, **contexts)


@contextmanager
def _spare_buffers(module: nn.Module) -> Iterator[None]:
    """Let what is in training mode update copies of its buffers."""
    buffers = [(m, *item) for m in module.modules() if m.training
               for item in m.named_buffers(recurse=False)]
    for owner, name, buffer in buffers:
        setattr(owner, name, buffer.clone())
    try:
        yield
    finally:
        for owner, name, buffer in buffers:
            setattr(owner, name, buffer)
