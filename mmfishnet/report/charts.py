# Copyright (c) mmfishnet authors. All rights reserved.
"""The report's charts, as SVG that stands in the page itself."""
from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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


def _svg(draw: Callable, width: float = 6.4, height: float = 3.6) -> str:
    with matplotlib.rc_context(STYLE):
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


def _thin(entries: Sequence[dict]) -> Sequence[dict]:
    return entries[::max(1, -(-len(entries) // MAX_POINTS))]


def _epochs(run, entries) -> list[float]:
    """Progress in epochs, or in iterations where a run counts these."""
    if not all('epoch' in entry for entry in entries):
        return [entry['iter'] for entry in entries]
    last = entries[-1]
    epoch = max(1, last['epoch'])
    # Iterations in an epoch: the first logged one of the second begins it.
    ends = {}
    for entry in entries:
        ends[entry['epoch']] = entry['iter']
    length = ends[epoch - 1] / (epoch - 1) if epoch - 1 in ends else max(
        ends.values()) / epoch
    return [entry['iter'] / length for entry in entries]


def losses(runs: Sequence) -> str:
    """The loss over time; of a single run, its parts as well."""

    def draw(figure):
        ax = figure.add_subplot()
        for run in runs:
            entries = _thin(run.train)
            if not entries:
                continue
            keys = ['loss']
            if len(runs) == 1:
                keys += [
                    key for key in entries[0]
                    if 'loss' in key and key != 'loss'
                ]
            for key in keys:
                label = run.name if len(runs) > 1 else key
                ax.plot(
                    _epochs(run, entries),
                    [entry.get(key, np.nan) for entry in entries],
                    label=label,
                    lw=2 if key == 'loss' else 1)
        ax.set(xlabel='epoch', ylabel='loss')
        ax.set_ylim(bottom=0)
        # Lines fill the axes: beside them.
        figure.legend(loc='outside upper center', ncols=3)

    return _svg(draw)


def metrics(runs: Sequence, names: Sequence[str]) -> str:
    """Metrics of the validation set over time."""

    def draw(figure):
        ax = figure.add_subplot()
        styles = ('-', '--', ':', '-.')
        for i, run in enumerate(runs):
            for j, name in enumerate(names):
                points = [(entry['step'], entry[name]) for entry in run.val
                          if name in entry]
                if not points:
                    continue
                short = name.split('/')[-1]
                many = len(runs) > 1
                ax.plot(
                    *zip(*points),
                    marker='o',
                    ms=4,
                    ls=styles[j % 4] if many else '-',
                    color=COLORS[(i if many else j) % len(COLORS)],
                    label=f'{run.name} {short}' if many else short)
        ax.set(xlabel='epoch')
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend()

    return _svg(draw)


def rates(runs: Sequence) -> str:
    """Learning rate, and the gradients' norm with the clip in force."""

    def draw(figure):
        upper, lower = figure.subplots(2, sharex=True)
        for i, run in enumerate(runs):
            entries = _thin(run.train)
            if not entries:
                continue
            epochs = _epochs(run, entries)
            color = COLORS[i % len(COLORS)]
            upper.plot(
                epochs, [entry.get('lr', np.nan) for entry in entries],
                color=color,
                label=run.name)
            norms = [entry.get('grad_norm', np.nan) for entry in entries]
            lower.plot(epochs, norms, color=color)
            if run.clip:
                norm, end = run.clip
                lower.hlines(
                    norm,
                    0,
                    min(end, epochs[-1]),
                    color=color,
                    ls='--',
                    label=f'clipped to {norm:g}')
        upper.set(ylabel='learning rate')
        upper.set_ylim(bottom=0)
        lower.set(ylabel='gradient norm', xlabel='epoch')
        lower.set_ylim(bottom=0)
        for ax in (upper, lower):
            if ax.get_legend_handles_labels()[0]:
                ax.legend()

    return _svg(draw, height=4.4)


def precision_recall(evaluations: dict) -> str:
    """Precision over recall, at IoU 0.5 and 0.75, the mean of the classes."""

    def draw(figure):
        kinds = list(
            dict.fromkeys(
                kind for e in evaluations.values() for kind in e.evals))
        axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for ax, kind in zip(axes, kinds):
            for i, (name, evaluation) in enumerate(evaluations.items()):
                if kind not in evaluation.evals:
                    continue
                for iou, style in ((0.5, '-'), (0.75, '--')):
                    label = f'IoU {iou:g}'
                    if len(evaluations) > 1:
                        label = f'{name}, {label}'
                    ax.plot(
                        *evaluation.curve(kind, iou),
                        style,
                        color=COLORS[i % len(COLORS)],
                        label=label)
            ax.set(
                xlim=(0, 1),
                ylim=(0, 1.02),
                xlabel='recall',
                title=dict(bbox='boxes', segm='masks')[kind])
        axes[0].set(ylabel='precision')
        axes[-1].legend()

    return _svg(draw, height=3.4)


def per_class(evaluations: dict) -> str:
    """AP of each class, or of the best and worst where there are many."""
    first = next(iter(evaluations.values()))
    kind = list(first.evals)[-1]
    values = {
        name: [e.ap(kind, label=i) for i in range(len(first.classes))]
        for name, e in evaluations.items() if e.classes == first.classes
    }
    mean = np.nan_to_num([np.mean(v) for v in zip(*values.values())])
    order = np.argsort(-mean, kind='stable')
    if len(order) > MAX_CLASSES:
        half = MAX_CLASSES // 2
        order = np.concatenate([order[:half], order[-half:]])

    def draw(figure):
        ax = figure.add_subplot()
        thick = 0.8 / len(values)
        for i, (name, aps) in enumerate(values.items()):
            shift = (i - (len(values) - 1) / 2) * thick
            places = np.arange(len(order)) + shift
            ax.barh(
                places, [aps[j] for j in order],
                thick,
                color=COLORS[i % len(COLORS)],
                label=name)
        ax.set_yticks(
            range(len(order)), [first.classes[j] for j in order])
        ax.invert_yaxis()
        ax.grid(axis='y', visible=False)
        ax.set(xlabel=f'AP of {dict(bbox="boxes", segm="masks")[kind]}')
        ax.set_xlim(left=0)
        if len(values) > 1:
            ax.legend()

    return _svg(draw, height=1.2 + 0.25 * len(order) * max(1, len(values) / 2))


def confusion(evaluation, most: int = 14) -> str:
    """What objects were taken for; the background means missed or invented."""
    matrix = evaluation.confusion
    names = [*evaluation.classes, 'background']
    counts = matrix.sum(0) + matrix.sum(1)
    kept = np.sort(np.argsort(-counts[:-1], kind='stable')[:most])
    kept = np.append(kept, len(names) - 1)
    matrix = matrix[np.ix_(kept, kept)]
    names = [names[i] for i in kept]
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)

    def draw(figure):
        ax = figure.add_subplot()
        ax.imshow(share, cmap='Blues', vmin=0, vmax=1, aspect='auto')
        ax.grid(visible=False)
        ax.set_xticks(
            range(len(names)), names, rotation=45, ha='right',
            rotation_mode='anchor')
        ax.set_yticks(range(len(names)), names)
        ax.set(xlabel='predicted', ylabel='true')
        for i, row in enumerate(matrix):
            for j, count in enumerate(row):
                if count:
                    ax.text(
                        j,
                        i,
                        count,
                        ha='center',
                        va='center',
                        color='white' if share[i, j] > 0.6 else '#111827')

    return _svg(draw, height=1.8 + 0.32 * len(names))
