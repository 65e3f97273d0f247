# Copyright (c) mmfishnet authors. All rights reserved.
"""Parameters, multiply-adds and training memory of FishNet and its peers."""
from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.flop_counter import FlopCounterMode

from mmfishnet.models.probe import image_channels, keep_modes
from networks import NETWORKS, Network, find_network
from step_memory import measure_kept_bytes

MIB = 2**20
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


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


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'models',
        nargs='*',
        metavar='MODEL',
        help=f'{", ".join(NETWORKS)}, or a config, of which the backbone is '
        'measured (default: all but configs)')
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        default=[224],
        metavar='N',
        help='height and width of the image (default: 224)')
    parser.add_argument(
        '--batch',
        type=int,
        default=32,
        metavar='N',
        help='images in a training batch (default: 32)')
    parser.add_argument(
        '--device',
        default='cpu',
        help="where to run; 'meta' records the same graph without computing "
        'anything, which takes seconds (default: cpu)')
    parser.add_argument('--csv', type=Path, metavar='FILE', help='exact table')
    parser.add_argument(
        '--figure4', type=Path, metavar='FILE', help="the paper's Figure 4")
    args = parser.parse_args()
    if len(args.size) > 2 or min(args.size) < 32:
        parser.error('--size takes one or two numbers, at least 32')
    if args.batch < 1:
        parser.error('--batch should be at least 1')
    return args


def main():
    args = parse_args()
    size = (args.size[0], args.size[-1])
    rows = []
    try:
        networks = [find_network(model) for model in args.models or NETWORKS]
        for network in track(
                networks,
                'measuring',
                console=Console(stderr=True),
                transient=True):
            with torch.device(args.device):
                model = network.build()
            rows.append((network, measure(model, size)))
        for file in (args.csv, args.figure4):
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
        if args.figure4:
            draw_figure4(rows, args.figure4)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f'error: {error}') from None
    if args.csv:
        write_csv(rows, args.csv, args.batch)
    width = None if sys.stdout.isatty() else 140
    Console(width=width).print(complexity_table(rows, args.batch))


if __name__ == '__main__':
    main()
