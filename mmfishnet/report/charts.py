# Copyright (c) mmfishnet authors. All rights reserved.
"""The report's charts, as SVG that stands in the page itself."""
from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .evaluate import KINDS

COLORS = ('#2563eb', '#ea580c', '#059669', '#9333ea', '#dc2626', '#0891b2',
          '#a16207', '#64748b')
STYLE = {
    # Text stays text: the page's fonts, and a fraction of the bytes.
    'svg.fonttype': 'none',
    'svg.hashsalt': 'mmfishnet',
    'font.size': 11,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.color': '#e5e7eb',
    'axes.edgecolor': '#9ca3af',
    'axes.prop_cycle': matplotlib.cycler(color=COLORS),
    'legend.frameon': False,
}
MAX_POINTS = 600
MAX_CLASSES = 30
MAX_LINES = 8
# COCO's by IoU, size and number, which the table has.
DETAIL = re.compile(r'(_\d+|_[sml](@\d+)?|@\d+)$')


def _svg(draw: Callable, width: float = 6.4, height: float = 3.6) -> str:
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Letters that this system lacks are the browser's to draw.
        warnings.filterwarnings('ignore', 'Glyph')
        figure = Figure(figsize=(width, height), layout='constrained')
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(
            buffer, format='svg', metadata=dict(Date=None), transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index('<svg'):]
    # As wide as the page allows.
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'class="chart"', svg,
                  count=1)


def _line(ax, run, entries, name, **style) -> None:
    """Draw a logged value over time, with points where they are few."""
    entries = entries[::max(1, -(-len(entries) // MAX_POINTS))]
    points = [(run.place(entry), entry[name]) for entry in entries
              if name in entry]
    if len(points) == 1:
        style.setdefault('marker', 'o')
    if points:
        ax.plot(*zip(*points), **style)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _time(runs) -> str:
    return ' or '.join(dict.fromkeys(run.unit for run in runs))


def losses(runs: Sequence) -> str:
    """The loss over time, dashed that of the validation set; of a single run,
    its parts as well."""

    def draw(figure):
        ax = figure.add_subplot()
        for i, run in enumerate(runs):
            names = ['loss']
            if len(runs) == 1:
                names += [name for name in (run.train or [{}])[0]
                          if 'loss' in name and name != 'loss']
            for j, name in enumerate(names):
                color = COLORS[max(i, j) % len(COLORS)]
                label = run.name if len(runs) > 1 else name
                _line(ax, run, run.train, name, label=label, color=color,
                      lw=1 if j else 2)
                _line(ax, run, run.val, name, label=f'{label}, validation',
                      color=color, lw=1 if j else 2, ls='--', marker='o',
                      ms=3)
        ax.set(xlabel=_time(runs), ylabel='loss')
        ax.set_ylim(bottom=0)
        if ax.lines:  # lines fill the axes: beside them
            figure.legend(loc='outside upper center', ncols=3)

    return _svg(draw)


def metrics(runs: Sequence) -> str | None:
    """Metrics of the validation set over time, None if there are none."""
    names = list(dict.fromkeys(
        name for run in runs for name in run.metrics
        if not DETAIL.search(name)))[:MAX_LINES]
    if not names:
        return None

    def draw(figure):
        ax = figure.add_subplot()
        many = len(runs) > 1
        for i, run in enumerate(runs):
            for j, name in enumerate(names):
                _line(ax, run, run.val, name, marker='o', ms=4,
                      ls=('-', '--', ':', '-.')[j % 4] if many else '-',
                      color=COLORS[(i if many else j) % len(COLORS)],
                      label=f'{run.name} {name}' if many else name)
        ax.set(xlabel=_time(runs))
        ax.legend()

    return _svg(draw)


def rates(runs: Sequence) -> str:
    """Learning rate, and the gradients' norm with the clip in force."""

    def draw(figure):
        upper, lower = figure.subplots(2, sharex=True)
        for i, run in enumerate(runs):
            color = COLORS[i % len(COLORS)]
            _line(upper, run, run.train, 'lr', color=color, label=run.name)
            _line(lower, run, run.train, 'grad_norm', color=color)
            _line(lower, run, run.train, 'clip_norm', color=color, ls='--',
                  label='clipped to')
        upper.set(ylabel='learning rate')
        lower.set(ylabel='gradient norm', xlabel=_time(runs))
        for ax in (upper, lower):
            ax.set_ylim(bottom=0)
            if ax.get_legend_handles_labels()[0]:
                ax.legend()

    return _svg(draw, height=4.4)


def precision_recall(evaluations: dict) -> str:
    """Precision over recall, at IoU 0.5 and 0.75, the mean of the classes."""
    kinds = [kind for kind in KINDS
             if any(kind in e.curves for e in evaluations.values())]

    def draw(figure):
        axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for ax, kind in zip(axes, kinds):
            for i, (name, evaluation) in enumerate(evaluations.items()):
                for iou, curve in evaluation.curves.get(kind, {}).items():
                    label = f'IoU {iou:g}'
                    if len(evaluations) > 1:
                        label = f'{name}, {label}'
                    ax.plot(*curve, '-' if iou == 0.5 else '--', label=label,
                            color=COLORS[i % len(COLORS)])
            ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel='recall',
                   title=KINDS[kind])
        axes[0].set(ylabel='precision')
        if axes[-1].lines:
            axes[-1].legend()

    return _svg(draw, height=3.4)


def per_class(evaluations: dict) -> str:
    """AP of each class, or of the best and worst where there are many."""
    classes = list(dict.fromkeys(
        name for e in evaluations.values() for name in e.per_class))
    values = {run: [e.per_class.get(name, np.nan) for name in classes]
              for run, e in evaluations.items()}
    table = np.nan_to_num(list(values.values()))
    order = np.argsort(-table.mean(0), kind='stable')
    if len(order) > MAX_CLASSES:
        half = MAX_CLASSES // 2
        order = np.concatenate([order[:half], order[-half:]])

    def draw(figure):
        ax = figure.add_subplot()
        thick = 0.8 / len(values)
        for i, (name, aps) in enumerate(values.items()):
            shift = (i - (len(values) - 1) / 2) * thick
            ax.barh(np.arange(len(order)) + shift, [aps[j] for j in order],
                    thick, color=COLORS[i % len(COLORS)], label=name)
        ax.set_yticks(range(len(order)), [classes[j] for j in order])
        ax.invert_yaxis()
        ax.grid(axis='y', visible=False)
        ax.set(xlabel='AP', xlim=(0, 1))
        if len(values) > 1:
            figure.legend(loc='outside upper center', ncols=3)

    return _svg(draw, height=1.2 + 0.25 * len(order) * max(1, len(values) / 2))


def confusion(evaluation, most: int = 14) -> str:
    """What was taken for what; the background means missed or invented."""
    matrix, names = evaluation.confusion, [*evaluation.model.classes]
    names += ['background'] * (len(matrix) - len(names))
    counts = matrix.sum(0) + matrix.sum(1)
    counts[len(evaluation.model.classes):] = counts.max() + 1  # background
    kept = np.sort(np.argsort(-counts, kind='stable')[:most + 1])
    matrix, names = matrix[np.ix_(kept, kept)], [names[i] for i in kept]
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    exact = matrix.max() < 100_000

    def draw(figure):
        ax = figure.add_subplot()
        ax.imshow(share, cmap='Blues', vmin=0, vmax=1, aspect='auto')
        ax.grid(visible=False)
        ax.set_xticks(range(len(names)), names, rotation=45, ha='right',
                      rotation_mode='anchor')
        ax.set_yticks(range(len(names)), names)
        ax.set(xlabel='predicted', ylabel='true')
        for i, j in np.argwhere(matrix):
            ax.text(j, i, matrix[i, j] if exact else f'{share[i, j]:.1%}',
                    ha='center', va='center',
                    color='white' if share[i, j] > 0.6 else '#111827')

    return _svg(draw, height=1.8 + 0.32 * len(names))
