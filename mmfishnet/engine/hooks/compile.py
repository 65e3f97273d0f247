# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

import torch
from mmengine.hooks import Hook
from torch import nn

from ...registry import HOOKS, register
from ..bare import bare_model


def why_not_compile(device: torch.device | str = 'cpu',
                    backend: str = 'inductor') -> str | None:
    """Try out whether ``torch.compile`` works here.

    It needs a C++ compiler for the CPU and Triton for GPUs, and not every
    torch supports every Python. A function of one line is compiled, which
    takes some seconds the first time.

    Args:
        device (torch.device | str): Where to try it. Defaults to 'cpu'.
        backend (str): torch's name of what compiles. Defaults to 'inductor'.

    Returns:
        str | None: What is wrong; None if nothing is.
    """
    if not hasattr(nn.Module, 'compile'):
        return f'torch {torch.__version__} has no Module.compile (2.2 has)'
    try:
        compiled = torch.compile(lambda x: x.relu() + 1, backend=backend)
        compiled(torch.zeros(8, device=device))
    except Exception as error:  # each backend has errors of its own
        return f'{type(error).__name__}: {error}'.strip().splitlines()[0]
    return None


def compile_in_place(network: nn.Module,
                     dynamic: bool | None = True,
                     backend: str = 'inductor') -> None:
    """Compile a network in place, forward and backward, as one graph.

    FishNet has 16 kinds of blocks, and torch compiles a function 8 times at
    most. The names in the state dict stay, copies (EMA) are not compiled.

    Args:
        network (nn.Module): What breaks no graph, as our backbones.
        dynamic (bool, optional): Whether one graph serves images of all
            sizes; False compiles one a size, None does so for the first and
            serves all with the next. Defaults to True.
        backend (str): torch's name of what compiles. Defaults to 'inductor'.
    """
    # For torch 2.13's inductor, the gradient of a convolution depends on the
    # size unless inductor knows that convolutions work in channels-last.
    open_sizes = backend == 'inductor' and dynamic is not False
    network.compile(
        fullgraph=True,
        dynamic=dynamic,
        backend=backend,
        options=dict(force_layout_optimization=True) if open_sizes else None)


def set_memory_budget(budget: float) -> bool:
    """Set torch's activation memory budget, for all that this process compiles
    from now on.

    Args:
        budget (float): From 0, which keeps inputs alone, to 1, torch's
            default.

    Returns:
        bool: Whether this torch has one.
    """
    # Here: importing it takes a while, and not every torch has it.
    from torch._functorch import config
    if not hasattr(config, 'activation_memory_budget'):
        return False
    config.activation_memory_budget = budget
    return True


@register(HOOKS)
class CompileBackboneHook(Hook):
    """Compile the backbone of a detector, classifier or segmenter.

    MMEngine's own ``compile=`` compiles the whole step, in which regions
    whose number depends on the image break the graph and compile anew. Here
    it is the backbone alone, where nothing does. The first step takes two to
    three minutes longer on two cores; with ``dynamic=False``, for images of
    one size, less than one (docs/benchmarks.md).

    Where compiling does not work, a warning says why, and the run goes on
    without.

    Args:
        dynamic (bool, optional): See :func:`compile_in_place`.
            Defaults to True.
        backend (str): Likewise. Defaults to 'inductor'.
        memory_budget (float, optional): Torch's activation memory budget:
            how much of what it would keep for the backward pass it keeps,
            from 0 (all is computed once more) to 1. It holds for all that is
            compiled in the run. Defaults to None: as torch is set.

    Raises:
        ValueError: If ``memory_budget`` is not between 0 and 1; at the start,
            if the model has no ``backbone``.

    Example:
        >>> custom_hooks = [dict(type='mmfishnet.CompileBackboneHook')]
    """

    def __init__(self,
                 dynamic: bool | None = True,
                 backend: str = 'inductor',
                 memory_budget: float | None = None) -> None:
        if memory_budget is not None and not 0 <= memory_budget <= 1:
            raise ValueError(f'memory_budget={memory_budget!r} should be a '
                             'number from 0 to 1, or None.')
        self.dynamic = dynamic
        self.backend = backend
        self.memory_budget = memory_budget
        self._done = False

    def before_run(self, runner) -> None:
        """Compile the backbone, once in a run."""
        if self._done:
            return
        self._done = True
        model = bare_model(runner.model)
        if not isinstance(getattr(model, 'backbone', None), nn.Module):
            raise ValueError(
                f'{type(model).__name__} has no backbone to compile.')
        device = next(model.parameters()).device
        problem = why_not_compile(device, self.backend)
        if problem:
            runner.logger.warning(
                'CompileBackboneHook: torch.compile does not work here, the '
                f'backbone runs without. {problem}')
            return
        if self.memory_budget is not None and not set_memory_budget(
                self.memory_budget):
            runner.logger.warning(
                f'CompileBackboneHook: torch {torch.__version__} has no '
                'activation memory budget (2.4 has); memory_budget='
                f'{self.memory_budget} has no effect.')
        compile_in_place(model.backbone, self.dynamic, self.backend)
        runner.logger.info('CompileBackboneHook: the backbone is compiled '
                           'at the first step.')
