# Copyright (c) mmfishnet authors. All rights reserved.
"""The report's charts, as SVG that stands in the page itself."""
from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable

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
MAX_CLASSES, MAX_CONFUSED = 30, 14
MAX_LINES = 8
# COCO's by IoU, size and number, which the table has.
DETAIL = re.compile(r'(_\d+|_[sml](@\d+)?|@\d+)$')


def svg(draw: Callable, *args) -> str:
    """A chart, as wide as the page allows, by one of the functions below: of
    a figure and what it shows."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Letters that this system lacks are the browser's to draw.
        warnings.filterwarnings('ignore', 'Glyph')
        figure = Figure(figsize=(6.4, 3.6), layout='constrained')
        draw(figure, *args)
        buffer = io.StringIO()
        figure.savefig(
            buffer, format='svg', metadata=dict(Date=None), transparent=True)
    text = buffer.getvalue()
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'class="chart"',
                  text[text.index('<svg'):], count=1)


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


def losses(figure, runs) -> None:
    """The loss over time, dashed that of the validation set; of a single run,
    its parts as well."""
    ax = figure.add_subplot()
    for i, run in enumerate(runs):
        names = ['loss']
        if len(runs) == 1:
            names += [name for name in (run.train or [{}])[0]
                      if 'loss' in name and name != 'loss']
        for j, name in enumerate(names):
            label = run.name if len(runs) > 1 else name
            style = dict(color=COLORS[max(i, j) % len(COLORS)],
                         lw=1 if j else 2)
            _line(ax, run, run.train, name, label=label, **style)
            _line(ax, run, run.val, name, label=f'{label}, validation',
                  ls='--', marker='o', ms=3, **style)
    ax.set(xlabel=_time(runs), ylabel='loss')
    ax.set_ylim(bottom=0)
    if ax.lines:  # lines fill the axes: beside them
        figure.legend(loc='outside upper center', ncols=3)


def main_metrics(runs) -> list[str]:
    """What was evaluated, without COCO's details."""
    names = dict.fromkeys(name for run in runs for name in run.metrics)
    return [name for name in names if not DETAIL.search(name)][:MAX_LINES]


def metrics(figure, runs) -> None:
    """Metrics of the validation set over time."""
    ax, many = figure.add_subplot(), len(runs) > 1
    for i, run in enumerate(runs):
        for j, name in enumerate(main_metrics(runs)):
            _line(ax, run, run.val, name, marker='o', ms=4,
                  ls=('-', '--', ':', '-.')[j % 4] if many else '-',
                  color=COLORS[(i if many else j) % len(COLORS)],
                  label=f'{run.name} {name}' if many else name)
    ax.set(xlabel=_time(runs))
    ax.legend()


def rates(figure, runs) -> None:
    """Learning rate, and the gradients' norm with the clip in force."""
    figure.set_figheight(4.4)
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


def precision_recall(figure, evaluations) -> None:
    """Precision over recall, at IoU 0.5 and 0.75, the mean of the classes."""
    figure.set_figheight(3.4)
    kinds = [kind for kind in KINDS
             if any(kind in e.curves for e in evaluations.values())]
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for ax, kind in zip(axes, kinds):
        for i, (name, evaluation) in enumerate(evaluations.items()):
            run = f'{name}, ' if len(evaluations) > 1 else ''
            for iou, curve in evaluation.curves.get(kind, {}).items():
                ax.plot(*curve, '-' if iou == 0.5 else '--',
                        label=f'{run}IoU {iou:g}',
                        color=COLORS[i % len(COLORS)])
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel='recall',
               title=KINDS[kind])
    axes[0].set(ylabel='precision')
    if axes[-1].lines:
        axes[-1].legend()


def per_class(figure, evaluations) -> None:
    """AP of each class, or of the best and worst where there are many."""
    classes = list(dict.fromkeys(
        name for e in evaluations.values() for name in e.per_class))
    values = np.array([[e.per_class.get(name, np.nan) for name in classes]
                       for e in evaluations.values()])
    order = np.argsort(-np.nan_to_num(values).mean(0), kind='stable')
    if len(order) > MAX_CLASSES:
        half = MAX_CLASSES // 2
        order = np.concatenate([order[:half], order[-half:]])
    figure.set_figheight(1.2 + 0.25 * len(order) * max(1, len(values) / 2))
    ax, thick = figure.add_subplot(), 0.8 / len(values)
    for i, name in enumerate(evaluations):
        shift = (i - (len(values) - 1) / 2) * thick
        ax.barh(np.arange(len(order)) + shift, values[i, order], thick,
                color=COLORS[i % len(COLORS)], label=name)
    ax.set_yticks(range(len(order)), [classes[j] for j in order])
    ax.invert_yaxis()
    ax.grid(axis='y', visible=False)
    ax.set(xlabel='AP', xlim=(0, 1))
    if len(values) > 1:
        figure.legend(loc='outside upper center', ncols=3)


def confusion(figure, matrix, classes) -> None:
    """What was taken for what; the background means missed or invented."""
    names = [*classes] + ['background'] * (len(matrix) - len(classes))
    counts = matrix.sum(0) + matrix.sum(1)
    counts[len(classes):] = counts.max() + 1  # background
    kept = np.sort(np.argsort(-counts, kind='stable')[:MAX_CONFUSED + 1])
    matrix, names = matrix[np.ix_(kept, kept)], [names[i] for i in kept]
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    exact = matrix.max() < 100_000
    figure.set_figheight(1.8 + 0.32 * len(names))
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
