# Copyright (c) mmfishnet authors. All rights reserved.
"""What :mod:`benchmark_runs` measured: tables, marks and pictures."""
from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from rich.table import Table

from benchmark_runs import AUTHORS, OURS, Result

MIB = 2**20
COLORS = {
    OURS: '#d1495b',
    AUTHORS: '#8d99ae',
    'ResNet-50': '#30638e',
    'DenseNet-161': '#2e7d6b'
}


class Mark(NamedTuple):
    """What our network in a variant should reach.

    Attributes:
        section (str): 'inference' or 'step'.
        variant (str): Name of the variant.
        quantity (str): Attribute of :class:`Result` whose ratio to that of
            the authors' arithmetic is bounded.
        bound (float): The most that it should be.
    """

    section: str
    variant: str
    quantity: str
    bound: float


MARKS = (
    Mark('inference', 'fp32, channels-last', 'seconds', 0.77),
    Mark('inference', 'fp32, channels-last, compiled', 'seconds', 0.68),
    Mark('inference', 'bf16, channels-last', 'seconds', 0.42),
    Mark('inference', 'bf16, channels-last, compiled', 'seconds', 0.38),
    Mark('step', 'fp32', 'kept', 0.47),
    Mark('step', 'fp32', 'seconds', 0.95),
    Mark('step', 'fp32, with_cp', 'kept', 0.12),
    Mark('step', 'fp32, with_cp', 'held', 0.22),
    Mark('step', 'fp32, channels-last, compiled', 'seconds', 0.87),
)


def check_marks(results: Sequence[Result]) -> list[tuple[str, float, float]]:
    """Put what was measured beside the marks.

    Args:
        results (Sequence[Result]): What was measured, the authors'
            arithmetic in fp32 among it.

    Returns:
        list[tuple[str, float, float]]: What is bounded, the ratio that was
        found, and the bound, for each mark that was measured.
    """
    found = []
    base = {(r.section, r.shape): r for r in results
            if (r.network, r.variant) == (AUTHORS, 'fp32')}
    for result in results:
        for mark in MARKS:
            theirs = base.get((result.section, result.shape))
            if theirs is None or result.network != OURS or (
                    result.section, result.variant) != mark[:2]:
                continue
            ratio = getattr(result, mark.quantity) / getattr(
                theirs, mark.quantity)
            shape = 'x'.join(map(str, result.shape))
            found.append((f'{mark.section} {shape}, {mark.variant}: '
                          f'{mark.quantity}', ratio, mark.bound))
    return found


def _cells(result: Result, base: Result | None) -> list[str]:
    def share(value):
        return '' if value is None else f'{100 * value:.0f}'

    def error(value):
        return '' if value is None else f'{value:.0e}'

    def size(quantity):
        value = getattr(result, quantity)
        if value is None:
            return ''
        theirs = base and getattr(base, quantity)
        return f'{value / MIB:.0f}' + (f' ({value / theirs:.2f})'
                                       if theirs else '')

    return [
        result.network, result.variant, f'{1000 * result.seconds:.0f}',
        f'{100 * result.spread:.0f}',
        '' if result.ratio is None else f'{result.ratio:.2f}',
        size('kept'),
        size('held'),
        size('peak'),
        error(result.output_error),
        error(result.grad_error),
        share(result.flops_share),
        share(result.traffic_share), f'{result.first:.1f}'
    ]


COLUMNS = ('Network', 'Variant', 'ms', 'IQR %', 'ratio', 'kept MiB',
           'held MiB', 'peak MiB', 'output error', 'gradient error', 'FLOP %',
           'traffic %', 'first s')
CAPTION = (
    'ms: median, IQR: its interquartile range. Ratios are to pytorchcv in '
    'fp32, channels first, of the same run. kept: what autograd keeps; held: '
    'that, and the largest part that with_cp recomputes; peak: '
    'the most that lives in a step beside parameters and their gradients. '
    'Errors: largest difference from float64 over the largest value. FLOP, '
    'traffic: share of the time that a matrix product of as many FLOP, or a '
    'copy of as many bytes, would take. first: the first call, compilation '
    'included.')


def group(results: Sequence[Result]) -> dict[tuple, list[Result]]:
    """Group by section and shape.

    Args:
        results (Sequence[Result]): What was measured.

    Returns:
        dict[tuple, list[Result]]: From (section, shape).
    """
    groups = {}
    for result in results:
        groups.setdefault((result.section, result.shape), []).append(result)
    return groups


def tabulate(results: Sequence[Result]) -> list[tuple[str, list[list[str]]]]:
    """Make one table for each section and shape, as text.

    Args:
        results (Sequence[Result]): What was measured.

    Returns:
        list[tuple[str, list[list[str]]]]: Titles, and rows of cells in the
        order of :data:`COLUMNS`.
    """
    tables = []
    for (section, shape), rows in group(results).items():
        base = next((r for r in rows if (r.network, r.variant) ==
                     (AUTHORS, 'fp32')), None)
        title = dict(
            inference='Inference',
            step='Training step, norms and stem fixed')[section]
        tables.append((f'{title}, {"x".join(map(str, shape))}',
                       [_cells(result, base) for result in rows]))
    return tables


def to_rich(results: Sequence[Result]) -> list[Table]:
    """Tables for the terminal, see :func:`tabulate`."""
    tables = []
    for title, rows in tabulate(results):
        table = Table(title=title, caption=CAPTION)
        for i, column in enumerate(COLUMNS):
            table.add_column(column, justify='right' if i > 1 else 'left')
        for row in rows:
            table.add_row(*row)
        tables.append(table)
    return tables


def to_markdown(results: Sequence[Result], machine: str) -> str:
    """The same in Markdown, with the marks.

    Args:
        results (Sequence[Result]): What was measured.
        machine (str): On what.

    Returns:
        str: The text.
    """
    lines = [f'Measured on {machine}. {CAPTION}', '']
    for title, rows in tabulate(results):
        lines += [f'### {title}', '', '| ' + ' | '.join(COLUMNS) + ' |',
                  '|---|---|' + '---:|' * (len(COLUMNS) - 2)]
        lines += ['| ' + ' | '.join(row) + ' |' for row in rows] + ['']
    marks = check_marks(results)
    if marks:
        lines += ['### Marks', '', '| | found | at most | |', '|---|---:|---:|'
                  '---|']
        lines += [
            f'| {what} | {ratio:.3f} | {bound:.2f} | '
            f'{"reached" if ratio <= bound else "missed"} |'
            for what, ratio, bound in marks
        ] + ['']
    return '\n'.join(lines)


def to_json(results: Sequence[Result]) -> list[dict]:
    """What was measured, in built-in types."""
    rows = []
    for result in results:
        row = asdict(result)
        del row['call'], row['times']
        rows.append(row)
    return rows


def draw(results: Sequence[Result], path: str | os.PathLike) -> None:
    """Draw times as bars, a panel for each section and shape.

    Args:
        results (Sequence[Result]): What was measured.
        path (str | os.PathLike): A PNG, SVG or PDF file.
    """
    groups = group(results)
    heights = [len(rows) for rows in groups.values()]
    figure = Figure(
        figsize=(9, 0.32 * sum(heights) + 0.9 * len(heights) + 0.5),
        layout='constrained')
    panels = figure.subplots(
        len(groups), height_ratios=heights, squeeze=False)[:, 0]
    for panel, ((section, shape), rows) in zip(panels, groups.items()):
        for i, r in enumerate(rows):
            panel.barh(
                i,
                1000 * r.seconds,
                xerr=500 * r.spread * r.seconds,
                color=COLORS.get(r.network, '0.5'),
                ecolor='0.3')
            if r.ratio is not None:
                panel.annotate(
                    f'{r.ratio:.2f}', (1000 * r.seconds, i),
                    xytext=(12, 0),
                    textcoords='offset points',
                    va='center',
                    fontsize=8)
        panel.set_yticks(
            range(len(rows)), [f'{r.network}, {r.variant}' for r in rows],
            fontsize=8)
        panel.invert_yaxis()
        panel.margins(x=0.12)
        panel.spines[['top', 'right']].set_visible(False)
        panel.set_title(f'{section}, {"x".join(map(str, shape))}: ms, and '
                        'the ratio to pytorchcv in fp32', fontsize=9)
    figure.savefig(path, dpi=130)


def draw_growth(rows: Sequence[dict], path: str | os.PathLike) -> None:
    """Draw time and kept bytes against pixels.

    Args:
        rows (Sequence[dict]): ``shape``, ``seconds`` of inference and
            ``kept`` bytes of a training step.
        path (str | os.PathLike): A PNG, SVG or PDF file.
    """
    figure = Figure(figsize=(10, 4), layout='constrained')
    for panel, key, unit, label in zip(
            figure.subplots(1, 2), ('seconds', 'kept'), (1, MIB),
        ('inference, s', 'kept in a training step, MiB')):
        for batched, name, marker in ((False, 'one image', 'o'),
                                      (True, 'a batch of 256x256', 's')):
            points = sorted(
                (r['pixels'] / 1e6, r[key] / unit) for r in rows
                if (r['shape'][0] > 1) is batched)
            if points:
                panel.plot(*zip(*points), marker + '-', label=name)
        panel.set_xlabel('millions of pixels')
        panel.set_ylabel(label)
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.legend()
    figure.savefig(path, dpi=130)


def write(results: Sequence[Result], machine: str, folder: Path) -> None:
    """Write ``benchmark.md`` and ``benchmark.png``.

    Args:
        results (Sequence[Result]): What was measured.
        machine (str): On what.
        folder (Path): Where to.
    """
    (folder / 'benchmark.md').write_text(
        to_markdown(results, machine), encoding='utf-8')
    draw(results, folder / 'benchmark.png')
