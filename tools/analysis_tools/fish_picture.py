# Copyright (c) mmfishnet authors. All rights reserved.
"""A picture of the fish (Figures 2 and 3) with its direct paths on it."""
from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from direct_paths import DirectPaths
from mmfishnet.models import FishNet
from mmfishnet.wiring import STEM_STRIDE, StageSpec

INK, GREY, DIRECT, ICONV = '#22303c', '#9aa5b1', '#e4572e', '#ffc83d'
SOFT = '#5b6875'
PARTS = dict(tail=('#3a6ea5', '#eaf1f8'),
             body=('#2a9d8f', '#e7f5f3'),
             head=('#7b5ea7', '#f1edf7'))
COLUMNS = dict(tail=2.6, body=7.4, head=12.2)
LEVEL_HEIGHT, BLOCK_WIDTH = 2.1, 1.95
SIZE = 224  # of the image that resolutions are given for
SHORT_DASHES, DOTS = (0, (2.2, 1.4)), (0, (1, 3))
DOWN_LABELS = dict(max2='2×2 max-pool',
                   max3='3×3 max-pool',
                   avg2='2×2 avg-pool',
                   conv='stride-2 conv')


class Edge(NamedTuple):
    """A connection of the picture, from one stage's feature to another's,
    and the prefixes of the modules that it runs through."""

    source: str
    target: str
    modules: tuple[str, ...]

    def isolated(self, paths: DirectPaths) -> list[str]:
        """Names of the isolated convolutions on it."""
        return [conv.module for conv in paths.isolated
                if conv.module.startswith(self.modules)]


def find_edges(fish: FishNet) -> dict[tuple[str, str], Edge]:
    """List who is connected to whom, from the specs of the stages."""
    edges = [Edge('image', 'stem', ('stem.', ))]
    for spec in fish.specs:
        edges.append(Edge(spec.reads, spec.name,
                          (f'{spec.name}.refine.', f'{spec.name}.down.')))
        if spec.joins:
            edges.append(
                Edge(spec.joins, spec.name, (f'{spec.name}.transfer.', )))
    return {edge[:2]: edge for edge in edges}


def find_direct_edges(fish: FishNet,
                      paths: DirectPaths) -> tuple[set[str], set[Edge]]:
    """Follow the direct paths back from the last output: the outputs of
    stages that a gradient reaches with no convolution before, and the
    connections that it passes as a whole."""
    edges = find_edges(fish).values()
    reached, direct = [fish.specs[-1].name], set()
    for name in reached:
        for edge in edges:
            if edge.target == name and not edge.isolated(paths):
                direct.add(edge)
                if edge.source not in reached:
                    reached.append(edge.source)
    return set(reached), direct


def draw_fish(fish: FishNet, paths: DirectPaths, path: str | Path,
              title: str = '') -> None:
    """Draw the fish with its direct paths and isolated convolutions, as an
    SVG, PNG or PDF file; everything shown is read from its specs."""
    if not isinstance(fish, FishNet):
        raise ValueError(f'{type(fish).__name__} is no FishNet; only a fish '
                         'can be drawn as one.')
    # The same file each time.
    with matplotlib.rc_context({'svg.hashsalt': 'mmfishnet'}):
        figure = Figure(figsize=(15, 9.714))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-0.9, 14.85), ylim=(-1.6, 8.6), aspect='equal')
        axes.axis('off')
        _Picture(axes, fish, paths).draw(title or type(fish).__name__)
        metadata = dict(Date=None) if Path(path).suffix == '.svg' else None
        figure.savefig(path, dpi=130, facecolor='white', metadata=metadata)


def _height(stride: int) -> float:
    """Resolutions are levels: 1/32 at the bottom, 1/4 at the top."""
    return (6 - stride.bit_length()) * LEVEL_HEIGHT


def _blocks(number: int) -> str:
    return f'{number} block' + 's' * (number > 1)


class _Picture:

    def __init__(self, axes, fish: FishNet, paths: DirectPaths) -> None:
        self.axes, self.fish, self.paths = axes, fish, paths
        self.reached, self.direct = find_direct_edges(fish, paths)
        self.edges = find_edges(fish)
        # Where each output stands, and the parts and channels of which it is
        # joined.
        self.places = dict(stem=(COLUMNS['tail'], _height(STEM_STRIDE)))
        self.joined = dict(stem=[('tail', fish.arch['stem_channels'])])
        for spec in fish.specs:
            part = 'body' if spec.part == 'bridge' else spec.part
            height = _height(spec.out_stride)
            if spec.part == 'head' and spec.out_stride == spec.in_stride:
                # The last stage, of which the refined feature is the output.
                height -= LEVEL_HEIGHT - 0.6
            self.places[spec.name] = (COLUMNS[part], height)
            self.joined[spec.name] = [(part, spec.channels)]
            if spec.joins:
                self.joined[spec.name].append(
                    (self.joined[spec.joins][0][0], spec.joined_channels))

    def draw(self, title: str) -> None:
        self._background(title)
        self._stem()
        for spec in self.fish.specs:
            (self._bridge if spec.part == 'bridge' else self._stage)(spec)
            if spec.joins:
                self._transfer(spec)
        for name in self.places:
            self._feature(name)
        x, y = self.places[self.fish.specs[-1].name]
        self._text(x, y - 0.32, 'output', 11.5, DIRECT, ha='center',
                   weight='bold')
        self._legend()

    # Strokes.

    def _text(self, x, y, text, size=9.5, color=INK, **kwargs) -> None:
        style = dict(ha='left', va='center', zorder=9, fontsize=size,
                     color=color)
        self.axes.text(x, y, text, **{**style, **kwargs})

    def _line(self, points, edge: Edge, last: tuple | None = None) -> None:
        """A connection, with an arrow at its end.

        ``last`` is the place of its last isolated convolution: the gradient
        comes back as far as that.
        """
        if edge in self.direct or last is None:
            self._stroke(points, edge in self.direct)
        else:
            self._stroke([*points[:-1], last], False, arrow=False)
            self._stroke([last, points[-1]], edge.target in self.reached)

    def _stroke(self, points, direct: bool, arrow: bool = True) -> None:
        color, order, width, style = (DIRECT, 5, 5, '-') if direct else (
            GREY, 4, 2.2, SHORT_DASHES)
        self.axes.plot(
            *zip(*points), color=color, zorder=order, linewidth=width,
            linestyle=style, solid_capstyle='round', solid_joinstyle='round',
            dash_capstyle='butt')
        if arrow:
            (x0, y0), (x1, y1) = points[-2:]
            self.axes.annotate(
                '', (x1, y1), (x1 - (x1 - x0) * 1e-3, y1 - (y1 - y0) * 1e-3),
                arrowprops=dict(arrowstyle='-|>', color=color, shrinkA=0,
                                shrinkB=0, mutation_scale=24 if direct else 17
                                ), zorder=order)

    def _box(self, x, y, width, height, color, fill='white', rounding=0.12,
             zorder=3) -> None:
        self.axes.add_patch(FancyBboxPatch(
            (x, y), width, height, facecolor=fill, edgecolor=color,
            linewidth=1.5, zorder=zorder,
            boxstyle=f'round,pad=0,rounding_size={rounding}'))

    def _isolated(self, x, y, number: int, horizontal: bool = False) -> None:
        for i in range(number):
            shift = (i - (number - 1) / 2) * 0.36
            self.axes.plot(
                x + shift * horizontal, y + shift * (not horizontal), 's',
                color=ICONV, markeredgecolor=INK, markeredgewidth=1.2,
                markersize=12, zorder=7)

    # Parts.

    def _background(self, title: str) -> None:
        for part, (color, fill) in PARTS.items():
            x = COLUMNS[part] - 1.45
            self._box(x, -0.62, 3.55, 3 * LEVEL_HEIGHT + 1.22, 'none', fill,
                      0.3, 0)
            self._text(x + 0.18, -0.4, part.upper(), 13, color, weight='bold')
        for stride in (4, 8, 16, 32):
            y = _height(stride)
            self.axes.plot([0.55, 14.25], [y, y], color='#c5cdd5', zorder=1,
                           linewidth=0.9, linestyle=DOTS)
            side = -(-SIZE // stride)
            self._text(0.45, y + 0.12, f'{side}×{side}', 10.5, ha='right')
            self._text(0.45, y - 0.16, f'1/{stride}', 9, GREY, ha='right')
        self._text(4.6, 8.2, title, 20, weight='bold')
        self._text(
            4.6, 7.72,
            'Where the gradient of the output goes, against the arrows, '
            'without passing a convolution', 12, SOFT)

    def _stem(self) -> None:
        x, y = self.places['stem']
        edge = self.edges['image', 'stem']
        number, top = len(edge.isolated(self.paths)), y + 1.1
        self._box(x - 0.3, top - 0.27, BLOCK_WIDTH, 0.54, GREY)
        self._line([(x, top + 0.62), (x, y + 0.1)], edge, (x, top))
        self._isolated(x, top, min(number, 1))
        self._text(x + 0.26, top, f'stem: {number} conv' if number else 'stem',
                   10, weight='bold')
        self._text(
            x, top + 0.78, f'image {SIZE}×{SIZE}', 10, ha='center')

    def _stage(self, spec: StageSpec) -> None:
        edge = self.edges[spec.reads, spec.name]
        (x0, y0), (x, y1) = self.places[spec.reads], self.places[spec.name]
        isolated = edge.isolated(self.paths)
        inside = sum(m.startswith(edge.modules[0]) for m in isolated)
        outside = len(isolated) - inside
        color = PARTS[spec.part][0]
        down = 1 if y1 > y0 else -1
        middle, sampling = y0 + down * 0.8, y0 + down * (LEVEL_HEIGHT - 0.55)
        points = [(x, y0 + 0.1 * down), (x, y1 - 0.1 * down)]
        if x0 != x:
            points[:1] = [(x0, y0), (x, y0)]
        last = (x, sampling if outside else middle) if isolated else None
        self._line(points, edge, last)
        self._box(x - 0.3, middle - 0.37, BLOCK_WIDTH, 0.74, color)
        self._isolated(x, middle, inside)
        self._text(
            x + 0.26, middle + 0.14, spec.name, 11, color, weight='bold')
        details = _blocks(spec.blocks)
        if spec.dilation > 1:
            details += f', dilation {spec.dilation}'
        self._text(x + 0.26, middle - 0.15, details, 9)
        if spec.reduction > 1:
            self._text(x + 1.54, middle + 0.14, f'r  k={spec.reduction}', 9,
                       ha='right', style='italic')
        if spec.out_stride != spec.in_stride:
            label = 'nearest ×2' if down > 0 else DOWN_LABELS[
                self.fish.down_sample]
            self._isolated(x, sampling, outside)
            self._text(x + 0.22, sampling, label, 8.5, SOFT, style='italic')

    def _bridge(self, spec: StageSpec) -> None:
        edge = self.edges[spec.reads, spec.name]
        number = len(edge.isolated(self.paths))
        middle, y = self._across(spec.reads, spec.name, edge, number)
        self._box(middle - 0.92, y - 0.8, 1.84, 1.04, GREY)
        self._isolated(middle, y, number, horizontal=True)
        self._text(middle, y - 0.33, 'bridge', 11, ha='center', weight='bold')
        self._text(middle, y - 0.6, f'{_blocks(spec.blocks)}, SE gate', 9,
                   ha='center')

    def _transfer(self, spec: StageSpec) -> None:
        edge = self.edges[spec.joins, spec.name]
        middle, y = self._across(spec.joins, spec.name, edge, 0)
        self._box(middle - 0.55, y - 0.48, 1.1, 0.66, GREY)
        self._isolated(middle, y, len(edge.isolated(self.paths)))
        self._text(middle, y - 0.28, f'T: {_blocks(spec.transfer_blocks)}', 9,
                   ha='center')

    def _across(self, source, target, edge, isolated: int) -> tuple:
        """A horizontal line, whose middle is returned."""
        (x0, y), (x1, _) = self.places[source], self.places[target]
        middle = (x0 + x1) / 2
        last = (middle + (isolated - 1) * 0.18, y) if isolated else None
        end = x1 - self._width(target) / 2 - 0.06
        self._line([(x0, y), (end, y)], edge, last)
        return middle, y

    def _width(self, name: str) -> float:
        return sum(number for _, number in self.joined[name])**0.5 / 30

    def _feature(self, name: str) -> None:
        """A bar as wide as the root of its channels, in its parts' colours."""
        x, y = self.places[name]
        numbers = [number for _, number in self.joined[name]]
        left = x - self._width(name) / 2
        for part, number in self.joined[name]:
            share = self._width(name) * number / sum(numbers)
            self.axes.add_patch(
                Rectangle((left, y - 0.1), share, 0.2, linewidth=1, zorder=6,
                          facecolor=PARTS[part][0], edgecolor='white'))
            left += share
        label = f'{sum(numbers)}'
        if len(numbers) > 1:
            label += '  =  ' + ' + '.join(map(str, numbers))
        self._text(x + 0.14, y + 0.24, label, 9.5, weight='bold')

    def _legend(self) -> None:
        y = -1.15
        self._stroke([(0, y), (0.8, y)], True, arrow=False)
        self._text(1.0, y, 'direct path from the output')
        self._stroke([(4.3, y), (5.1, y)], False, arrow=False)
        self._text(5.3, y, 'blocked by an isolated convolution')
        self._isolated(9.0, y, 1)
        self._text(9.25, y, 'isolated convolution')
        self._text(11.6, y, 'T  transfer   r  channel reduction')
