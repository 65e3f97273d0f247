# Copyright (c) mmfishnet authors. All rights reserved.
"""What the benchmark measured: tables, marks and pictures."""
from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby, product
from pathlib import Path

from matplotlib.figure import Figure

from benchmark_runs import Result
from benchmark_tables import AUTHORS, LAYERS, MARKS, OURS, PLAIN, REGIMES
from tables import MIB, Cells

COLORS = {
    OURS: '#d1495b',
    AUTHORS: '#8d99ae',
    LAYERS: '#e9a3ad',
    'ResNet-50': '#30638e',
    'DenseNet-161': '#2e7d6b'
}
COLUMNS = ('Network', 'Variant', 'ms', 'IQR %', 'ratio', 'kept MiB',
           'held MiB', 'peak MiB', 'output error', 'gradient error', 'first s')
CAPTION = (
    'ms: median, IQR: its interquartile range. Ratios are to pytorchcv in '
    'fp32, channels first, of the same run. kept: what autograd keeps; held: '
    'that, and the largest part that with_cp recomputes; peak: '
    'the most that lives in a step beside parameters and their gradients. '
    'Errors: largest difference from float64 over the largest value. first: '
    'the first call, compilation included.')


def _groups(results: Sequence[Result]) -> list[tuple[str, list[Result]]]:
    """What was measured side by side, with its title."""
    groups = []
    for (section, regime, shape), group in groupby(
            results, lambda r: (r.section, r.regime, r.shape)):
        title = 'Inference' if section == 'inference' else (
            f'Training step, {REGIMES[regime].title}')
        groups.append((f'{title}, {"x".join(map(str, shape))}', list(group)))
    return groups


def _find(group: Sequence[Result], network: str,
          variant: str = PLAIN.name) -> Result | None:
    return next((r for r in group
                 if (r.network, r.variant) == (network, variant)), None)


def check_marks(results: Sequence[Result]
                ) -> list[tuple[str, float, float, str]]:
    """Put what was measured beside the marks: what is bounded, the ratio
    that was found, the bound and the verdict, for each that was measured."""
    found = []
    for (title, group), mark in product(_groups(results), MARKS):
        ours = _find(group, OURS, mark.variant.name)
        theirs = _find(group, mark.peer)
        if not (ours and theirs) or (ours.section, ours.regime) != (
                mark.section, mark.regime):
            continue
        values = getattr(ours, mark.quantity), getattr(theirs, mark.quantity)
        if None in values:
            continue
        ratio = values[0] / values[1]
        of = '' if mark.peer == AUTHORS else f' of {mark.peer}'
        found.append((
            f'{title}, {mark.variant.name}: {mark.quantity}{of}', ratio,
            mark.bound, 'reached' if ratio <= mark.bound else 'missed'))
    return found


def tabulate_results(results: Sequence[Result]) -> list[Cells]:
    """Make one table for each section, regime and shape."""
    tables = []
    for title, group in _groups(results):
        base = _find(group, AUTHORS)
        rows = [_cells(result, base) for result in group]
        tables.append(Cells(COLUMNS, rows, title, CAPTION, names=2))
    return tables


def _cells(result: Result, base: Result | None) -> list[str]:

    def text(value, form, factor=1):
        return '' if value is None else f'{factor * value:{form}}'

    def size(quantity):
        value, theirs = getattr(result, quantity), getattr(
            base, quantity, None)
        share = f' ({value / theirs:.2f})' if value and theirs else ''
        return text(value, '.0f', 1 / MIB) + share

    return [
        result.network, result.variant,
        text(result.seconds, '.0f', 1000),
        text(result.spread, '.0f', 100),
        text(result.ratio, '.2f'),
        size('kept'),
        size('held'),
        size('peak'),
        text(result.output_error, '.0e'),
        text(result.grad_error, '.0e'),
        text(result.first, '.1f')
    ]


def to_json(results: Sequence[Result]) -> list[dict]:
    """What was measured, in built-in types."""
    return [{k: v for k, v in asdict(result).items()
             if k not in ('call', 'times')} for result in results]


def write_markdown(results: Sequence[Result], machine: str,
                   path: str | os.PathLike) -> None:
    """Write all tables, and the marks, as Markdown."""
    lines = [f'Measured on {machine}. {CAPTION}', '']
    for table in tabulate_results(results):
        lines += [f'### {table.title}', '', table.markdown()]
    marks = [(what, f'{ratio:.3f}', f'{bound:.2f}', verdict) for
             what, ratio, bound, verdict in check_marks(results)]
    if marks:
        lines += ['### Marks', '',
                  Cells(('', 'found', 'at most', ''), marks).markdown()]
    Path(path).write_text('\n'.join(lines), encoding='utf-8')


def draw_times(results: Sequence[Result], path: str | os.PathLike) -> None:
    """Draw times as bars, a panel for each table, as PNG, SVG or PDF."""
    groups = _groups(results)
    heights = [len(group) for _, group in groups]
    figure = Figure(
        figsize=(9, 0.32 * sum(heights) + 0.9 * len(heights) + 0.5),
        layout='constrained')
    panels = figure.subplots(
        len(groups), height_ratios=heights, squeeze=False)[:, 0]
    for panel, (title, group) in zip(panels, groups):
        times = [1000 * r.seconds for r in group]
        bars = panel.barh(
            [f'{r.network}, {r.variant}' for r in group], times,
            xerr=[t * r.spread / 2 for t, r in zip(times, group)],
            color=[COLORS.get(r.network, '0.5') for r in group], ecolor='0.3')
        panel.bar_label(bars, ['' if r.ratio is None else f'{r.ratio:.2f}'
                               for r in group], padding=12, fontsize=8)
        panel.tick_params(axis='y', labelsize=8)
        panel.invert_yaxis()
        panel.margins(x=0.12)
        panel.spines[['top', 'right']].set_visible(False)
        panel.set_title(f'{title}: ms, and the ratio to pytorchcv in fp32',
                        fontsize=9)
    figure.savefig(path, dpi=130)


def draw_growth(rows: Sequence[dict], path: str | os.PathLike) -> None:
    """Draw time of inference and kept bytes of a step against pixels."""
    figure = Figure(figsize=(10, 4), layout='constrained')
    for panel, key, unit, label in zip(
            figure.subplots(1, 2), ('seconds', 'kept'), (1, MIB),
        ('inference, s', 'kept in a training step, MiB')):
        for batched, name, marker in ((False, 'one image', 'o'),
                                      (True, 'a batch of 256x256', 's')):
            points = sorted((r['pixels'] / 1e6, r[key] / unit) for r in rows
                            if (r['shape'][0] > 1) is batched)
            if points:
                panel.plot(*zip(*points), marker + '-', label=name)
        panel.set(xlabel='millions of pixels', ylabel=label, xlim=(0, None),
                  ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend()
    figure.savefig(path, dpi=130)
