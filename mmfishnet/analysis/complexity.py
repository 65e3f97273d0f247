# Copyright (c) mmfishnet authors. All rights reserved.
"""Parameters, multiply-adds and training memory (section 4.2, Figure 4)."""
from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.flop_counter import FlopCounterMode

from ..models.blocks import Stage
from .peers import Network

MIB = 2**20
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


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


@dataclass(frozen=True)
class Complexity:
    """What a network costs.

    Attributes:
        size (tuple[int, int]): Height and width of the image.
        params (int): Number of parameters.
        multiply_adds (int): For one image, see :func:`count_multiply_adds`.
        image_bytes (int): What autograd keeps for each image of a batch.
        batch_bytes (int): What it keeps once for a batch, such as the
            statistics of batch norms.
        state_bytes (int): Parameters, their gradients and SGD's momentum.
    """

    size: tuple[int, int]
    params: int
    multiply_adds: int
    image_bytes: int
    batch_bytes: int
    state_bytes: int

    def training_bytes(self, batch: int) -> int:
        """Memory of a training step: state, and what autograd keeps.

        Workspaces, the gradients of features and the allocator's slack come
        on top on a GPU.

        Args:
            batch (int): Images in a batch.

        Returns:
            int: Bytes.
        """
        return (self.state_bytes + self.batch_bytes +
                batch * self.image_bytes)


def count_multiply_adds(model: nn.Module, size: tuple[int, int]) -> int:
    """Count the multiply-adds of one image.

    A convolution or matrix product counts one for each multiply-add, a norm
    layer two for each element; all else counts nothing. That is what
    MMEngine's ``get_model_complexity_info`` counts, too, which traces the
    model and therefore does not work on 'meta'.

    Args:
        model (nn.Module): Takes images (N, C, H, W). On the device 'meta',
            nothing is computed.
        size (tuple[int, int]): H and W.

    Returns:
        int: The number, which is what papers call FLOPs.
    """
    device = next(model.parameters()).device
    normalised = 0

    def count(module, args, output):
        nonlocal normalised
        normalised += output.numel()

    hooks = [
        module.register_forward_hook(count) for module in model.modules()
        if isinstance(module, NORMS)
    ]
    try:
        with keep_modes(model, train=False), torch.no_grad(), \
                FlopCounterMode(display=False) as counter:
            model(
                torch.zeros(1, image_channels(model), *size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    # The counter takes a multiply-add for two.
    return counter.get_total_flops() // 2 + 2 * normalised


def find_tensors(output) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    else:
        for item in output:
            yield from find_tensors(item)


def measure_kept_bytes(model: nn.Module,
                       images: Tensor,
                       is_part: bool = False) -> int:
    """Measure what autograd keeps of a training forward.

    Every tensor that a node of the graph saves is caught as it is saved, and
    its storage is counted once. Parameters and buffers, which are there
    anyway, are left out.

    Args:
        model (nn.Module): Is run once in training mode, which updates the
            statistics of its norm layers.
        images (Tensor): (N, C, H, W), on the model's device. On 'meta' the
            same graph is recorded, with the same sizes, and nothing computed.
        is_part (bool): Whether the model is a part of another: its norms stay
            in the modes that they are in, and what it gets is there anyway.
            Defaults to False.

    Returns:
        int: Bytes that live from the forward to the backward pass.
    """
    def key(tensor: Tensor) -> int:
        # Unlike data_ptr, different for each storage on 'meta' as well.
        return tensor.untyped_storage()._cdata

    own = {key(tensor) for tensor in (*model.parameters(), *model.buffers())}
    if is_part:
        own.add(key(images))
    modes = nullcontext() if is_part else keep_modes(model, train=True)
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        if key(tensor) not in own:
            kept[key(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    # The outputs hold the graph, and with it every storage: no address is
    # used twice while we count.
    with modes, torch.enable_grad(), \
            torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        outputs = model(images)
    if not any(output.requires_grad for output in find_tensors(outputs)):
        raise ValueError('the model has nothing to train: autograd kept '
                         'nothing.')
    return sum(kept.values())


def _recomputed_parts(backbone: nn.Module) -> Iterator[nn.Module]:
    """The modules that ``with_cp`` recomputes, each in one piece."""
    for module in backbone.modules():
        if isinstance(module, Stage):
            yield from filter(None, (module.refine, module.transfer))
        elif hasattr(module, 'with_cp') and module is not backbone:
            yield module


def measure_recomputed(backbone: nn.Module, image: Tensor) -> int:
    """Measure what ``with_cp`` recomputes at a time.

    Args:
        backbone (nn.Module): A backbone of ours, with ``with_cp`` or without.
        image (Tensor): Images (N, C, H, W) on the backbone's device.

    Returns:
        int: Bytes that autograd keeps of the largest part, beyond its input.
    """
    backbone = deepcopy(backbone)
    for module in backbone.modules():
        if hasattr(module, 'with_cp'):
            module.with_cp = False
    inputs = {}
    for part in _recomputed_parts(backbone):
        part.register_forward_pre_hook(
            lambda part, args: inputs.setdefault(part, args[0]))
    with torch.no_grad():
        backbone.train()(image)
    return max(
        measure_kept_bytes(part, x.requires_grad_(), is_part=True)
        for part, x in inputs.items())


def measure(model: nn.Module,
            size: tuple[int, int] = (224, 224)) -> Complexity:
    """Measure all that a network costs.

    Args:
        model (nn.Module): Takes images (N, C, H, W). It is run, in training
            mode, on one image and on two: what autograd keeps is linear in
            their number.
        size (tuple[int, int]): H and W. Defaults to (224, 224).

    Returns:
        Complexity: The result.
    """
    device = next(model.parameters()).device
    multiply_adds = count_multiply_adds(model, size)
    # Two and three: no norm layer takes a single value for statistics.
    two, three = (
        measure_kept_bytes(
            model,
            torch.randn(n, image_channels(model), *size, device=device))
        for n in (2, 3))
    bytes_of = {
        param: param.numel() * param.element_size()
        for param in model.parameters()
    }
    trained = sum(n for param, n in bytes_of.items() if param.requires_grad)
    return Complexity(
        size=tuple(size),
        params=sum(param.numel() for param in bytes_of),
        multiply_adds=multiply_adds,
        image_bytes=three - two,
        batch_bytes=3 * two - 2 * three,
        state_bytes=sum(bytes_of.values()) + 2 * trained)


Rows = Sequence['tuple[Network, Complexity]']


def complexity_table(rows: Rows, batch: int = 32) -> Table:
    """Make a table for the terminal.

    Args:
        rows (Sequence[tuple[Network, Complexity]]): What to show.
        batch (int): Images in a batch, for the last memory column.
            Defaults to 32.

    Returns:
        Table: For ``rich.print``.
    """
    height, width = rows[0][1].size
    table = Table(
        title=f'Complexity at {height}x{width}',
        caption='Kept: what autograd keeps of an image for the backward pass, '
        'measured. Step: kept, parameters, gradients and momentum of a batch. '
        'Printed sizes and errors are those of their source, not ours.')
    table.add_column('Network')
    for column in ('Params\nM', 'printed\nM', 'Multiply-adds\nG',
                   'Kept\nMiB/image', f'Step of {batch}\nMiB',
                   'Top-1 error\n%'):
        table.add_column(column, justify='right')
    table.add_column('whose error')
    for network, cost in rows:
        table.add_row(
            network.title, f'{cost.params / 1e6:.2f}',
            f'{network.params:.1f}' if network.params else '',
            f'{cost.multiply_adds / 1e9:.2f}',
            f'{cost.image_bytes / MIB:.1f}',
            f'{cost.training_bytes(batch) / MIB:.0f}',
            f'{network.error:.2f}' if network.error else '', network.source)
    return table


def write_csv(rows: Rows, path: str | Path, batch: int = 32) -> None:
    """Write the table as CSV, with exact numbers.

    Args:
        rows (Sequence[tuple[Network, Complexity]]): What to write.
        path (str | Path): The file.
        batch (int): Images in a batch. Defaults to 32.
    """
    with open(path, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow([
            'network', 'height', 'width', 'params', 'printed_params_m',
            'multiply_adds', 'kept_bytes_per_image', 'batch',
            'training_bytes', 'published_top1_error', 'published_by'
        ])
        for network, cost in rows:
            writer.writerow([
                network.title, *cost.size, cost.params, network.params,
                cost.multiply_adds, cost.image_bytes, batch,
                cost.training_bytes(batch), network.error, network.source
            ])


COLORS = dict(FishNet='#d1495b', DenseNet='#2e7d6b', ResNet='#30638e')
# Where labels stand beside their points, in points; above right if not here.
OFFSETS = {
    'FishNet-99': (-7, -10),
    'FishNet-150': (-7, -10),
    'FishNet-201': (-7, -10),
    'DenseNet-169': (-7, -10),
    'DenseNet-161': (7, -12)
}


def draw_figure4(rows: Rows, path: str | Path) -> None:
    """Draw Figure 4: published top-1 error against parameters and FLOPs.

    Args:
        rows (Sequence[tuple[Network, Complexity]]): Those with a family and
            an error are drawn.
        path (str | Path): A PNG, SVG or PDF file.

    Raises:
        ValueError: If no row has a family and an error.
    """
    # Here: the tools that draw nothing start faster.
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    rows = [(net, cost) for net, cost in rows if net.family and net.error]
    if not rows:
        raise ValueError('none of these networks is in Figure 4.')
    short = {net: re.split('[ ,]', net.title)[0] for net, _ in rows}
    figure = Figure(figsize=(11, 5), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    for panel, label, value in zip(
            panels, ('Parameters (millions)', 'Multiply-adds (billions)'),
        (lambda c: c.params / 1e6, lambda c: c.multiply_adds / 1e9)):
        for family, color in COLORS.items():
            points = sorted((value(cost), net.error, short[net])
                            for net, cost in rows if net.family == family)
            if not points:
                continue
            panel.plot(
                *zip(*(point[:2] for point in points)),
                'o-',
                color=color,
                markersize=8,
                linewidth=2.2,
                zorder=3 if family.startswith('Fish') else 2)
            for x, y, name in points:
                dx, dy = OFFSETS.get(name, (7, 4))
                panel.annotate(
                    name, (x, y),
                    xytext=(dx, dy),
                    textcoords='offset points',
                    ha='right' if dx < 0 else 'left',
                    fontsize=9,
                    color=color,
                    zorder=5,
                    path_effects=[withStroke(linewidth=3, foreground='w')])
        panel.set_xlabel(label)
        panel.margins(x=0.23, y=0.1)
        panel.grid(color='#e6e6e6')
        panel.set_axisbelow(True)
        panel.spines[['top', 'right']].set_visible(False)
    panels[0].set_ylabel('Top-1 error on ImageNet, one crop (%)')
    height, width = rows[0][1].size
    sources = '; '.join(
        ', '.join(short[n] for n, _ in rows if n.source == source) +
        f': {source}' for source in dict.fromkeys(n.source for n, _ in rows))
    figure.supxlabel(
        f'Parameters and multiply-adds (at {height}x{width}) are counted '
        'here; the errors are published ones, none of them ours.\n'
        f'{sources}.',
        fontsize=7.5,
        color='#555555')
    figure.savefig(path, dpi=130)
