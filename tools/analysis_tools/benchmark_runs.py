# Copyright (c) mmfishnet authors. All rights reserved.
"""Time and memory of backbones in several variants, in one run.

Every variant computes the same function. What it returns, and in a training
step the gradients as well, is compared with the same network in float64.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.benchmark import Measurement, Timer

from benchmark_tables import (
    AUTHORS,
    BACKBONES,
    OURS,
    PLAIN,
    REGIMES,
    Variant,
    find_norms,
)
from mmfishnet.engine.hooks.compile import compile_in_place
from mmfishnet.models.built import find_tensors, largest_error
from step_memory import Meter, measure_kept_bytes, measure_recomputed


@dataclass
class Result:
    """What was measured of one backbone in one variant at one shape."""

    section: str  # 'inference' or 'step'
    regime: str
    network: str
    variant: str  # or another runtime
    shape: tuple[int, ...]  # (N, C, H, W)
    seconds: float | None = None  # of a forward or a step, the median
    spread: float | None = None  # interquartile range over the median
    ratio: float | None = None  # of the time, to the authors' arithmetic
    first: float | None = None  # seconds of the first call, compiling included
    # Largest difference from float64 over the largest value: of an output,
    # and of a parameter's gradient.
    output_error: float | None = None
    grad_error: float | None = None
    # Bytes: what autograd keeps for the backward pass; that, and what with_cp
    # recomputes at a time; what lives at most in a step beside parameters and
    # their gradients (on a GPU the allocator's, workspaces included).
    kept: int | None = None
    held: int | None = None
    peak: int | None = None
    # What is called again and again, and its times so far.
    call: Callable | None = field(default=None, repr=False)
    times: list[Measurement] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class Setting:
    """Where and how long to measure, and what is told of it."""

    device: str = 'cpu'
    threads: int = 1
    rounds: int = 5  # how often all take turns
    min_run_time: float = 0.2  # seconds of each in a round
    log: Callable[[str], None] = print

    def sync(self) -> None:
        """Wait for the device."""
        if self.device.startswith('cuda'):
            torch.cuda.synchronize()


def build(name: str, variant: Variant, device: str,
          regime: str = 'fixed') -> nn.Module:
    """Build a backbone in training mode, not compiled yet: the same weights
    for the same name, the statistics of its batch norms those of noise."""
    torch.manual_seed(0)
    with torch.device('meta' if device == 'meta' else 'cpu'):
        model = BACKBONES[name](REGIMES[regime], variant.with_cp)
        if device != 'meta' and hasattr(model, 'init_weights'):
            model.init_weights()
        images = torch.randn(2, 3, 64, 64)
    norms = [m for m in find_norms(model) if isinstance(m, _BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1
    with torch.no_grad():
        model(images)
    for norm in norms:
        norm.momentum = 0.1
    model.to(device).train()
    if variant.channels_last:
        model.to(memory_format=torch.channels_last)
    return model


class Call:
    """Inference or a training step of a backbone on images (N, C, H, W),
    ready to be called."""

    def __init__(self, section: str, model: nn.Module, images: Tensor,
                 variant: Variant) -> None:
        self.step = section == 'step'
        self.model = model.train(self.step)
        self.variant = variant
        self.take(images)
        self.grad_outputs = []
        self.context = nullcontext()
        if variant.bf16 and self.step:
            self.context = torch.autocast(images.device.type, torch.bfloat16)
        elif variant.bf16:  # all but norms
            norms = {*find_norms(model)}
            for module in model.modules():
                for param in () if module in norms else module.parameters(
                        recurse=False):
                    param.data = param.data.bfloat16()
        self.params = [p for p in model.parameters() if p.requires_grad]
        if variant.compiled:
            compile_in_place(model, dynamic=variant.open_sizes)

    def take(self, images: Tensor) -> None:
        """Take other images (N, C, H, W) for the next calls."""
        if self.variant.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        if self.variant.bf16 and not self.step:
            images = images.bfloat16()
        self.images = images

    def __call__(self) -> list[Tensor]:
        """Compute the outputs, and in a step all gradients."""
        if not self.step:
            with torch.no_grad():
                return [*find_tensors(self.model(self.images))]
        with self.context:
            outputs = [*find_tensors(self.model(self.images))]
        if [x.shape for x in self.grad_outputs] != [x.shape for x in outputs]:
            # No ones: what a live norm gives has a fixed sum.
            generator = torch.Generator().manual_seed(2)
            self.grad_outputs = [
                torch.randn(x.shape, generator=generator).to(x)
                for x in outputs
            ]
        torch.autograd.backward(outputs, self.grad_outputs)
        return outputs

    def timed(self, setting: Setting) -> float:
        """Seconds of one call, whatever is compiled in it included."""
        setting.sync()
        start = time.perf_counter()
        self()
        setting.sync()
        return time.perf_counter() - start

    def clear(self) -> None:
        """Forget the gradients."""
        for param in self.params:
            param.grad = None

    def values(self) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs and gradients of one call, in float64."""
        self.clear()
        outputs = [x.detach().double() for x in self()]
        grads = [p.grad.double() for p in self.params] if self.step else []
        self.clear()
        return outputs, grads

    def peak(self) -> int | None:
        """Bytes that live at most in a step; None where that is not known.

        The gradient of a parameter is let go when it is there, but on a GPU.
        """
        self.clear()
        if self.images.is_cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self()
            return torch.cuda.max_memory_allocated() - before
        if self.variant.compiled:
            return None

        def let_go(param):
            param.grad = None

        hooks = [p.register_post_accumulate_grad_hook(let_go)
                 for p in self.params]
        with Meter() as meter:
            self()
        for hook in hooks:
            hook.remove()
        return meter.peak


def measure_section(section: str, shape: tuple[int, ...],
                    cases: Sequence[tuple[str, Variant]], setting: Setting,
                    regime: str = 'fixed',
                    others: Callable | None = None) -> list[Result]:
    """Measure several backbones and variants on images of a shape, side by
    side.

    Ratios are to (``AUTHORS``, ``PLAIN``), where it is among the cases. On
    the device 'meta' nothing is computed: of a step the bytes are counted.
    ``others`` takes a model and images and yields names and functions of
    other runtimes of our network.
    """
    torch.set_num_threads(setting.threads)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(shape, generator=generator).to(setting.device)
    truths, results = {}, []
    for name, variant in cases:
        setting.log(f'{section} ({regime}) {"x".join(map(str, shape))}: '
                    f'{name}, {variant.name}')
        model = build(name, variant, setting.device, regime)
        result = Result(section, regime, name, variant.name, tuple(shape))
        results.append(result)
        if setting.device == 'meta':
            _count_bytes(result, Call(section, model, images, variant))
            continue
        if name not in truths:
            truths[name] = Call(section, deepcopy(model).double(),
                                images.double(), PLAIN).values()
        _measure_once(result, Call(section, model, images, variant),
                      truths[name], setting)
    if setting.device == 'meta':
        return results
    if others is not None and section == 'inference':
        model = build(OURS, PLAIN, setting.device).eval()
        for name, call in others(model, images):
            setting.log(f'{section}: {OURS}, {name}')
            error = largest_error([call().double()], truths[OURS][0])
            results.append(Result(section, regime, OURS, name, tuple(shape),
                                  output_error=error, call=call))
    take_turns(results, setting)
    return results


def _measure_once(result: Result, call: Call, truth: tuple,
                  setting: Setting) -> None:
    """All that one call tells: its errors and its bytes."""
    result.call = call
    result.first = call.timed(setting)
    outputs, grads = call.values()
    result.output_error = largest_error(outputs, truth[0])
    if not call.step:
        return
    # Nothing but rounding is the gradient of a bias in front of a live norm.
    least = 1e-6 * max(float(grad.abs().max()) for grad in truth[1])
    result.grad_error = largest_error(*zip(*(
        (a, b) for a, b in zip(grads, truth[1]) if b.abs().max() > least)))
    _count_bytes(result, call)


def _count_bytes(result: Result, call: Call) -> None:
    """What a step keeps, holds and takes at most."""
    with call.context:
        result.held = result.kept = measure_kept_bytes(call.model, call.images)
        if call.variant.with_cp:
            more = measure_recomputed(call.model, call.images)
            # Of what is recomputed in another way the peak tells.
            result.held = result.held + more if more else None
    result.peak = call.peak()


def take_turns(results: Iterable[Result], setting: Setting) -> None:
    """Time all of them in turn, so that whatever else slows the machine down
    hits each alike."""
    for _ in range(setting.rounds):
        for result in results:
            timer = Timer('call()', globals=dict(call=result.call),
                          num_threads=setting.threads)
            result.times.append(timer.blocked_autorange(
                min_run_time=setting.min_run_time))
    for result in results:
        merged, = Measurement.merge(result.times)
        result.seconds = merged.median
        result.spread = merged.iqr / merged.median
        result.call, result.times = None, []
    base = next((r.seconds for r in results
                 if (r.network, r.variant) == (AUTHORS, PLAIN.name)), None)
    for result in results:
        result.ratio = base and result.seconds / base
