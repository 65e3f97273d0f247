# Copyright (c) mmfishnet authors. All rights reserved.
"""What :mod:`direct_paths` finds, as tables for the terminal."""
from __future__ import annotations

import re

from rich import box
from rich.table import Table
from torch import nn

from direct_paths import DirectBP, make_image, measure_gradients


def paths_table(backbone: nn.Module,
                report: DirectBP,
                size: int = 64,
                title: str = '') -> Table:
    """Make a table of the features: who reaches them, how, and a measurement.

    Args:
        backbone (nn.Module): What was examined.
        report (DirectBP): What :func:`examine` found.
        size (int): Height and width of the image for the measurement.
            Defaults to 64.
        title (str): Name of the network. Defaults to ''.

    Returns:
        Table: For ``rich.print``.
    """
    images = make_image(backbone, size)
    every = measure_gradients(backbone, report, images)
    direct = measure_gradients(backbone, report, images, isolated=False)
    table = Table(
        title=f'{title}: convolutions between features',
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption='Row: where the gradient comes from. Column: the earlier '
        'feature that it reaches, and the fewest convolutions on a '
        'path between them; ✓ is none, direct BP. Right: RMS of the gradient '
        "of the row's feature when that of each output is 1 and all "
        'message convolutions are zero: along all paths, and along direct '
        'paths alone.')
    table.add_column('From', no_wrap=True)
    table.add_column('C', justify='right')
    table.add_column('1/', justify='right')
    for feature in report.features[:-1]:
        # The number on a line of its own keeps the columns narrow.
        table.add_column(
            re.sub(r'\.?(\d+)$', r'\n\1', feature.name), justify='center')
    table.add_column('RMS', justify='right')
    table.add_column('direct', justify='right')
    reached = set(report.direct())
    for feature in report.features:
        cells = []
        for earlier in report.features[:-1]:
            convs = report.convs.get((feature.name, earlier.name))
            cells.append('' if convs is None else
                         '[bold green]✓[/]' if convs == 0 else f'{convs}')
        rms = (g[feature.name].square().mean().sqrt() for g in (every, direct))
        table.add_row(
            f'[bold green]{feature.name}[/]'
            if feature.name in reached else feature.name,
            f'{feature.channels}', f'{feature.stride}', *cells,
            *(f'{value:.2g}' for value in rms))
    return table


def isolated_table(backbone: nn.Module, report: DirectBP) -> Table:
    """Make a table of the isolated convolutions.

    Args:
        backbone (nn.Module): What was examined.
        report (DirectBP): What :func:`examine` found.

    Returns:
        Table: For ``rich.print``.
    """
    modules = dict(backbone.named_modules())
    table = Table(title=f'{len(report.isolated)} isolated convolutions '
                  f'(of {len(report.weighted)})')
    for column in ('From', 'to', 'Module', 'Convolution'):
        table.add_column(column, overflow='fold')
    for conv in report.isolated:
        weight = modules[conv.module].weight
        kernel = 'x'.join(map(str, weight.shape[2:])) or 'linear'
        table.add_row(', '.join(conv.before), ', '.join(conv.after),
                      conv.module,
                      f'{kernel}, {weight.shape[1]} → {weight.shape[0]}')
    return table
