# Copyright (c) mmfishnet authors. All rights reserved.
"""Parameters, multiply-adds and training memory of FishNet and its peers.

Section 4.2 and Figure 4 of the paper.
"""
from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.flop_counter import FlopCounterMode

from mmfishnet.engine.errors import short_errors
from mmfishnet.models.built import image_channels, keep_modes
from networks import NETWORKS, Network, find_network
from step_memory import measure_kept_bytes
from tables import MIB, Cells

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class Complexity:
    """What a network costs at a size of images."""

    size: tuple[int, int]  # height and width
    params: int
    multiply_adds: int  # of one image
    image_bytes: int  # what autograd keeps for each image of a batch
    batch_bytes: int  # and once for a batch, as the norms' statistics
    state_bytes: int  # parameters, their gradients and SGD's momentum

    def training_bytes(self, batch: int) -> int:
        """Memory of a training step: state, and what autograd keeps.

        Workspaces, the gradients of features and the allocator's slack come
        on top on a GPU.
        """
        return (self.state_bytes + self.batch_bytes + batch * self.image_bytes)


def count_multiply_adds(model: nn.Module, size: tuple[int, int]) -> int:
    """Count the multiply-adds of one image, which papers call FLOPs.

    A convolution or matrix product counts one for each multiply-add, a norm
    layer two for each element; all else counts nothing. That is what
    MMEngine's ``get_model_complexity_info`` counts, too, which traces the
    model and therefore does not work on 'meta'.
    """
    normalised = []
    hooks = [
        module.register_forward_hook(
            lambda module, args, output: normalised.append(output.numel()))
        for module in model.modules() if isinstance(module, NORMS)
    ]
    image = torch.zeros(1, image_channels(model), *size,
                        device=next(model.parameters()).device)
    try:
        with keep_modes(model, train=False), torch.no_grad(), \
                FlopCounterMode(display=False) as counter:
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    # The counter takes a multiply-add for two.
    return counter.get_total_flops() // 2 + 2 * sum(normalised)


def measure_complexity(model: nn.Module,
                       size: tuple[int, int] = (224, 224)) -> Complexity:
    """Measure all that a network costs at a height and width.

    It is run, in training mode, on two images and on three: what autograd
    keeps is linear in their number, and no norm layer takes a single value
    for statistics.
    """
    params = [*model.parameters()]
    two, three = (measure_kept_bytes(
                      model,
                      torch.randn(n, image_channels(model), *size,
                                  device=params[0].device)) for n in (2, 3))
    return Complexity(
        size=tuple(size), params=sum(p.numel() for p in params),
        multiply_adds=count_multiply_adds(model, size),
        image_bytes=three - two, batch_bytes=3 * two - 2 * three,
        state_bytes=sum(p.numel() * p.element_size() *
                        (3 if p.requires_grad else 1) for p in params))


Rows = Sequence['tuple[Network, Complexity]']


def tabulate_complexity(rows: Rows, batch: int = 32) -> Cells:
    """Make the table for the terminal, with ``batch`` images in a step."""
    cells = [(network.title, f'{cost.params / 1e6:.2f}',
              f'{network.params:.1f}' if network.params else '',
              f'{cost.multiply_adds / 1e9:.2f}',
              f'{cost.image_bytes / MIB:.1f}',
              f'{cost.training_bytes(batch) / MIB:.0f}',
              f'{network.error:.2f}' if network.error else '', network.source)
             for network, cost in rows]
    return Cells(
        ('Network', 'Params\nM', 'printed\nM', 'Multiply-adds\nG',
         'Kept\nMiB/image', f'Step of {batch}\nMiB', 'Top-1 error\n%',
         'whose error'), cells,
        'Complexity at {}x{}'.format(*rows[0][1].size),
        'Kept: what autograd keeps of an image for the backward pass, '
        'measured. Step: kept, parameters, gradients and momentum of a batch. '
        'Printed sizes and errors are those of their source, not ours.')


def write_csv(rows: Rows, path: str | Path, batch: int = 32) -> None:
    """Write the table as CSV, with exact numbers."""
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

def draw_figure4(rows: Rows, path: str | Path) -> None:
    """Draw Figure 4: published top-1 error against parameters and FLOPs, of
    the rows with a family and an error."""
    # Here: without a picture, the command starts faster.
    from matplotlib.figure import Figure

    rows = [(net, cost) for net, cost in rows if net.family and net.error]
    if not rows:
        raise ValueError('none of these networks is in Figure 4.')
    short = {net: re.split('[ ,]', net.title)[0] for net, _ in rows}
    figure = Figure(figsize=(11, 5), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    for panel, label, of in zip(
            panels, ('Parameters (millions)', 'Multiply-adds (billions)'),
        (lambda c: c.params / 1e6, lambda c: c.multiply_adds / 1e9)):
        for family, color in COLORS.items():
            points = sorted((of(cost), net.error, short[net])
                            for net, cost in rows if net.family == family)
            front = family == 'FishNet'
            panel.plot([x for x, _, _ in points], [y for _, y, _ in points],
                       'o-', color=color, markersize=8, linewidth=2.2,
                       zorder=2 + front)
            for x, y, name in points:
                panel.annotate(
                    name, (x, y), (-7, -10) if front else (7, 4),
                    textcoords='offset points', color=color, fontsize=9,
                    ha='right' if front else 'left')
        panel.set_xlabel(label)
        panel.margins(x=0.23, y=0.1)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel('Top-1 error on ImageNet, one crop (%)')
    sources = '; '.join(
        ', '.join(short[n] for n, _ in rows if n.source == source) +
        f': {source}' for source in dict.fromkeys(n.source for n, _ in rows))
    figure.supxlabel(
        'Parameters and multiply-adds (at {}x{}) are counted here; the errors '
        'are published ones, none of them ours.\n{}.'.format(
            *rows[0][1].size, sources), fontsize=7.5, color='#555555')
    figure.savefig(path, dpi=130)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('models', nargs='*', metavar='MODEL',
        help=f'{", ".join(NETWORKS)}, or a config, of which the backbone is '
        'measured (default: all but configs)')
    add('--size', type=int, nargs='+', default=[224], metavar='N',
        help='height and width of the image (default: 224)')
    add('--batch', type=int, default=32, metavar='N',
        help='images in a training batch (default: 32)')
    add('--device', default='cpu',
        help="where to run; 'meta' records the same graph without computing "
        'anything, which takes seconds (default: cpu)')
    add('--csv', type=Path, metavar='FILE', help='exact table')
    add('--figure4', type=Path, metavar='FILE', help="the paper's Figure 4")
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
    with short_errors(ValueError, FileNotFoundError):
        networks = [find_network(model) for model in args.models or NETWORKS]
        for network in track(networks, 'measuring', transient=True,
                             console=Console(stderr=True)):
            with torch.device(args.device):
                model = network.build()
            rows.append((network, measure_complexity(model, size)))
        for file in filter(None, (args.csv, args.figure4)):
            file.parent.mkdir(parents=True, exist_ok=True)
        if args.figure4:
            draw_figure4(rows, args.figure4)
    if args.csv:
        write_csv(rows, args.csv, args.batch)
    tabulate_complexity(rows, args.batch).show()


if __name__ == '__main__':
    main()
