# Copyright (c) mmfishnet authors. All rights reserved.
"""Time and memory of backbones in several variants, in one run.

Every variant computes the same function. What it returns, and in a training
step the gradients as well, is compared with the same network in float64.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.benchmark import Measurement, Timer
from torch.utils.flop_counter import FlopCounterMode

from mmfishnet.engine.hooks.compile import compile_in_place
from mmfishnet.models import FishNet
from mmfishnet.models.probe import find_tensors, largest_error
from networks import NETWORKS
from step_memory import Meter, measure_kept_bytes, measure_recomputed

FIXED_NORMS = dict(
    frozen_stages=0,
    norm_eval=True,
    norm_cfg=dict(type='BN', requires_grad=False))


@dataclass(frozen=True)
class Variant:
    """A way to run a backbone.

    Attributes:
        name (str): Its name in tables.
        channels_last (bool): Whether weights and images are channels-last.
            Defaults to False.
        compiled (bool): Whether ``torch.compile`` has compiled it.
            Defaults to False.
        open_sizes (bool): Whether for all sizes, or for the one at hand.
            Defaults to False.
        bf16 (bool): Whether convolutions compute in bfloat16 (norms do in
            float32). Defaults to False.
        with_cp (bool): Whether stages are recomputed in the backward pass.
            Defaults to False.
    """

    name: str
    channels_last: bool = False
    compiled: bool = False
    open_sizes: bool = False
    bf16: bool = False
    with_cp: bool = False


PLAIN = Variant('fp32')
CHANNELS_LAST = Variant('fp32, channels-last', channels_last=True)
COMPILED = replace(
    CHANNELS_LAST, name='fp32, channels-last, compiled', compiled=True)
OPEN_SIZES = replace(
    COMPILED, name='fp32, channels-last, compiled for all sizes',
    open_sizes=True)
BF16 = Variant('bf16, channels-last', channels_last=True, bf16=True)
INFERENCE = (PLAIN, CHANNELS_LAST, COMPILED, BF16,
             replace(BF16, name='bf16, channels-last, compiled',
                     compiled=True))
STEP = (PLAIN, replace(PLAIN, name='fp32, with_cp', with_cp=True),
        CHANNELS_LAST, COMPILED, OPEN_SIZES, BF16)

OURS, AUTHORS = 'FishNet-150', 'FishNet-150, pytorchcv'


class _Peer(nn.Sequential):
    """Layers whose batch norms stay fixed when they are trained."""

    def train(self, mode: bool = True) -> _Peer:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self


def _pytorchcv() -> nn.Module:
    # Here: an optional package. It is the authors' code in other words, and
    # computes what ours does with out_indices=(3, ).
    from pytorchcv.models.fishnet import fishnet150
    features = fishnet150().features
    return _Peer(features.init_block, features.hg)


def _torchvision(name: str) -> nn.Module:
    return _Peer(*NETWORKS[name].backbone().children())


# From the name to what builds the backbone, its stem first.
BACKBONES: dict[str, Callable[..., nn.Module]] = {
    AUTHORS: _pytorchcv,
    OURS: lambda **kwargs: FishNet(
        150, out_indices=(3, ), **FIXED_NORMS, **kwargs),
    'ResNet-50': lambda: _torchvision('resnet50'),
    'DenseNet-161': lambda: _torchvision('densenet161')
}


def build(name: str, variant: Variant, device: str) -> nn.Module:
    """Build a backbone, its batch norms fixed at the statistics of noise.

    Args:
        name (str): One of :data:`BACKBONES`.
        variant (Variant): How it will run. It is not compiled yet.
        device (str): Where.

    Returns:
        nn.Module: The same weights for the same name, in training mode.
    """
    torch.manual_seed(0)
    kwargs = dict(with_cp=True) if variant.with_cp else {}
    model = BACKBONES[name](**kwargs)
    if hasattr(model, 'init_weights'):
        model.init_weights()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    for param in (p for norm in norms for p in norm.parameters()):
        param.requires_grad_(False)
    # As section 4.4 has it: what sees the whole image is fixed. Peers have
    # the same convolutions in a first layer that is a module of its own.
    first = model.stem if isinstance(model, FishNet) else model[0]
    first.requires_grad_(False)
    model.to(device).train()
    if variant.channels_last:
        model.to(memory_format=torch.channels_last)
    return model


@dataclass
class Result:
    """What was measured of one backbone in one variant at one shape.

    Attributes:
        section (str): 'inference' or 'step'.
        network (str): Its name.
        variant (str): That of the variant, or of another runtime.
        shape (tuple[int]): Of the images, (N, C, H, W).
        seconds (float): Median time of a forward or a step.
        spread (float): Interquartile range of the time, over the median.
        ratio (float, optional): Median time over that of the authors'
            arithmetic in the same run.
        first (float): Seconds of the first call, the compilation in it.
        output_error (float): Largest difference of an output from float64,
            over its largest value.
        grad_error (float, optional): The same of the parameters' gradients.
        kept (int, optional): Bytes that autograd keeps for the backward pass.
        held (int, optional): These, and what ``with_cp`` recomputes at a
            time.
        peak (int, optional): Bytes that live at most in a step, beside
            parameters and their gradients: features, their gradients and
            what is recomputed. On a GPU the allocator's, workspaces included.
        flops_share (float, optional): Time that the multiply-adds would take
            at the rate of a large matrix product, over the time.
        traffic_share (float, optional): Time that reading and writing all
            operands would take at the rate of a copy, over the time.
    """

    section: str
    network: str
    variant: str
    shape: tuple[int, ...]
    seconds: float = 0.0
    spread: float = 0.0
    ratio: float | None = None
    first: float = 0.0
    output_error: float = 0.0
    grad_error: float | None = None
    kept: int | None = None
    held: int | None = None
    peak: int | None = None
    flops_share: float | None = None
    traffic_share: float | None = None
    # What is called again and again, and its times so far.
    call: Callable | None = field(default=None, repr=False)
    times: list[Measurement] = field(default_factory=list, repr=False)


def _sync(device: str) -> None:
    if device.startswith('cuda'):
        torch.cuda.synchronize()


def _outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    return [*find_tensors(model(images))]


def _half(model: nn.Module) -> nn.Module:
    """All but norms to bfloat16."""
    for module in model.modules():
        if not isinstance(module, _BatchNorm):
            for param in module.parameters(recurse=False):
                param.data = param.data.bfloat16()
    return model


class Run:
    """Inference or a training step of a backbone, ready to be called.

    Args:
        section (str): 'inference' or 'step'.
        model (nn.Module): What :func:`build` returned.
        images (Tensor): (N, C, H, W), on the model's device.
        variant (Variant): How it runs.
    """

    def __init__(self, section: str, model: nn.Module, images: Tensor,
                 variant: Variant) -> None:
        self.step = section == 'step'
        self.model = model.train(self.step)
        self.variant = variant
        self.take(images)
        self.context = nullcontext()
        if variant.bf16 and self.step:
            self.context = torch.autocast(images.device.type, torch.bfloat16)
        elif variant.bf16:
            _half(model)
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
                return _outputs(self.model, self.images)
        with self.context:
            outputs = _outputs(self.model, self.images)
        torch.autograd.backward(outputs, [torch.ones_like(x) for x in outputs])
        return outputs

    def clear(self) -> None:
        """Forget the gradients."""
        for param in self.params:
            param.grad = None

    def results(self) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs and gradients of one call, in float64."""
        self.clear()
        outputs = [x.detach().double() for x in self()]
        grads = [p.grad.double() for p in self.params] if self.step else []
        self.clear()
        return outputs, grads


def time_call(run: Run, device: str) -> float:
    """Time one call, whatever is compiled in it included.

    Args:
        run (Run): What to call.
        device (str): Where it computes.

    Returns:
        float: Seconds.
    """
    _sync(device)
    start = time.perf_counter()
    run()
    _sync(device)
    return time.perf_counter() - start


def measure_peak(run: Run) -> tuple[int, int]:
    """Measure the peak of a step, and its traffic.

    Args:
        run (Run): A step that is not compiled.

    Returns:
        tuple[int, int]: Bytes that lived at most, and bytes that were read
        and written. The gradient of a parameter is let go when it is there.
    """
    def let_go(param):
        param.grad = None

    run.clear()
    hooks = [p.register_post_accumulate_grad_hook(let_go) for p in run.params]
    with Meter() as meter:
        run()
    for hook in hooks:
        hook.remove()
    return meter.peak, meter.traffic


def measure_limits(device: str, bf16: bool,
                   threads: int) -> tuple[float, float]:
    """Measure what the device can do.

    Args:
        device (str): The device.
        bf16 (bool): Whether to multiply in bfloat16 or float32.
        threads (int): Threads of the CPU.

    Returns:
        tuple[float, float]: FLOP a second, two a multiply-add, in a large
        matrix product or 1x1 convolution; bytes a second read and written
        by a copy.
    """
    side = 8192 if device.startswith('cuda') else 1024
    matrix = torch.randn(side, side, device=device)
    images = torch.randn(4, side, 32, 32, device=device)
    big = torch.empty(2**25, device=device)
    if bf16:
        matrix, images = matrix.bfloat16(), images.bfloat16()
    names = dict(
        a=matrix,
        kernel=matrix[:, :, None, None],
        images=images.contiguous(memory_format=torch.channels_last),
        big=big,
        other=torch.empty_like(big),
        conv2d=conv2d)
    product, convolution, copy = (
        Timer(stmt, globals=names, num_threads=threads).blocked_autorange(
            min_run_time=0.1).median
        for stmt in ('a @ a', 'conv2d(images, kernel)', 'other.copy_(big)'))
    # On some CPUs convolutions have the faster library of the two.
    rate = 2 * side**2 * max(side / product, 4 * 32**2 / convolution)
    return rate, 2 * 4 * 2**25 / copy


def measure_section(section: str,
                    shape: tuple[int, ...],
                    cases: Sequence[tuple[str, Variant]],
                    device: str = 'cpu',
                    threads: int = 1,
                    rounds: int = 5,
                    min_run_time: float = 0.2,
                    others: Callable | None = None,
                    log: Callable = print) -> list[Result]:
    """Measure several backbones and variants side by side.

    The rounds go through all of them in turn, so that whatever else slows
    the machine down hits each alike.

    Args:
        section (str): 'inference' or 'step'.
        shape (tuple[int]): Of the images, (N, C, H, W).
        cases (Sequence[tuple[str, Variant]]): What to measure. Ratios are to
            (:data:`AUTHORS`, :data:`PLAIN`), where it is among them.
        device (str): Defaults to 'cpu'.
        threads (int): Threads of the CPU. Defaults to 1.
        rounds (int): Defaults to 5.
        min_run_time (float): Seconds to measure each for in a round.
            Defaults to 0.2.
        others (Callable, optional): Takes a model and images and yields
            names and functions of other runtimes of our network.
            Defaults to None.
        log (Callable): Is told what is being measured. Defaults to print.

    Returns:
        list[Result]: One a case, in their order.
    """
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(shape, generator=generator).to(device)
    limits = {bf16: measure_limits(device, bf16, threads)
              for bf16 in {variant.bf16 for _, variant in cases}}
    truths, counts, results = {}, {}, []
    for name, variant in cases:
        log(f'{section} {"x".join(map(str, shape))}: {name}, {variant.name}')
        result = Result(section, name, variant.name, tuple(shape))
        results.append(result)
        model = build(name, variant, device)
        if name not in truths:
            double = Run(section, deepcopy(model).double(), images.double(),
                         PLAIN)
            truths[name] = double.results()
            del double
            counts[name] = _count(Run(section, model, images, PLAIN))
        run = result.call = Run(section, model, images, variant)
        result.first = time_call(run, device)
        outputs, grads = run.results()
        result.output_error = largest_error(outputs, truths[name][0])
        if run.step:
            result.grad_error = largest_error(grads, truths[name][1])
            with run.context:
                result.held = result.kept = measure_kept_bytes(
                    model, run.images)
                if variant.with_cp:
                    result.held += measure_recomputed(model, run.images)
        if run.step and device.startswith('cuda'):
            result.peak = _allocated(run)
        elif run.step and not variant.compiled:
            result.peak = measure_peak(run)[0]
    if others is not None and section == 'inference':
        model = build(OURS, PLAIN, device).eval()
        for name, call in others(model, images):
            log(f'{section}: {OURS}, {name}')
            error = largest_error([call().double()], truths[OURS][0])
            results.append(
                Result(section, OURS, name, tuple(shape), output_error=error,
                       call=call))

    for _ in range(rounds):
        for result in results:
            timer = Timer('call()', globals=dict(call=result.call),
                          num_threads=threads)
            result.times.append(
                timer.blocked_autorange(min_run_time=min_run_time))
    for result in results:
        merged, = Measurement.merge(result.times)
        result.seconds = merged.median
        result.spread = merged.iqr / merged.median
    base = next((r.seconds for r in results
                 if (r.network, r.variant) == (AUTHORS, PLAIN.name)), None)
    for result, (name, variant) in zip(results, cases):
        flops, traffic = counts[name]
        rate, bandwidth = limits[variant.bf16]
        result.flops_share = flops / rate / result.seconds
        if not variant.compiled and not variant.with_cp:
            size = 2 if variant.bf16 else 4
            result.traffic_share = (
                traffic * size / 4 / bandwidth / result.seconds)
    for result in results:
        result.ratio = base and result.seconds / base
        result.call = None
        result.times = []
    return results


def _count(run: Run) -> tuple[int, int]:
    """FLOP (two a multiply-add) and bytes of traffic, in float32."""
    with FlopCounterMode(display=False) as flops:
        run()
    with Meter() as meter:
        run()
    run.clear()
    return flops.get_total_flops(), meter.traffic


def _allocated(run: Run) -> int:
    run.clear()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before
