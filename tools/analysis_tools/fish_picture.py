# Copyright (c) mmfishnet authors. All rights reserved.
"""A picture of the fish (Figures 2 and 3) with its direct paths on it."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from direct_paths import DirectBP
from mmfishnet.models import FishNet
from mmfishnet.wiring import STEM_STRIDE, StageSpec

INK, GREY, DIRECT, ICONV = '#22303c', '#9aa5b1', '#e4572e', '#ffc83d'
PARTS = dict(
    tail=('#3a6ea5', '#eaf1f8'),
    body=('#2a9d8f', '#e7f5f3'),
    head=('#7b5ea7', '#f1edf7'))
COLUMNS = dict(tail=2.6, body=7.4, head=12.2)
LEVEL_HEIGHT, BLOCK_WIDTH = 2.1, 1.95
DOWN_LABELS = dict(
    max2='2×2 max-pool',
    max3='3×3 max-pool',
    avg2='2×2 avg-pool',
    conv='stride-2 conv')


def _height(stride: int) -> float:
    """Resolutions are levels: 1/32 at the bottom, 1/4 at the top."""
    return (6 - stride.bit_length()) * LEVEL_HEIGHT


@dataclass(frozen=True)
class Edge:
    """A connection of the picture.

    Attributes:
        source (str): The feature that it starts from.
        target (str): The feature that it leads to.
        modules (tuple[str]): Prefixes of the modules that it runs through.
    """

    source: str
    target: str
    modules: tuple[str, ...]


def find_edges(fish: FishNet) -> tuple[Edge, ...]:
    """List who is connected to whom, from the specs of the stages.

    Args:
        fish (FishNet): The backbone.

    Returns:
        tuple[Edge]: Features are named after the stage that gives them.
    """
    edges = [Edge('image', 'stem', ('stem.', ))]
    for spec in fish.specs:
        edges.append(
            Edge(spec.reads, spec.name,
                 (f'{spec.name}.refine.', f'{spec.name}.down.')))
        if spec.joins:
            edges.append(
                Edge(spec.joins, spec.name, (f'{spec.name}.transfer.', )))
    return tuple(edges)


def find_isolated(edge: Edge, report: DirectBP) -> list[str]:
    """List the isolated convolutions on a connection.

    Args:
        edge (Edge): The connection.
        report (DirectBP): What :func:`direct_paths.examine` found.

    Returns:
        list[str]: Names of their modules.
    """
    return [
        conv.module for conv in report.isolated
        if conv.module.startswith(edge.modules)
    ]


def find_direct_edges(fish: FishNet,
                      report: DirectBP) -> tuple[set[str], set[Edge]]:
    """Follow the direct paths back from the last output.

    Args:
        fish (FishNet): The backbone.
        report (DirectBP): What :func:`direct_paths.examine` found.

    Returns:
        tuple[set[str], set[Edge]]: The outputs of stages that a gradient
        reaches with no convolution before, and the connections that it
        passes as a whole.
    """
    edges = find_edges(fish)
    reached, direct = [fish.specs[-1].name], set()
    for name in reached:
        for edge in edges:
            if edge.target == name and not find_isolated(edge, report):
                direct.add(edge)
                if edge.source not in reached:
                    reached.append(edge.source)
    return set(reached), direct


def draw_fish(fish: FishNet,
              report: DirectBP,
              path: str | Path,
              title: str = '',
              size: int = 224) -> None:
    """Draw the fish with its direct paths and isolated convolutions.

    Args:
        fish (FishNet): The backbone; everything shown is read from its specs.
        report (DirectBP): What :func:`direct_paths.examine` found about it.
        path (str | Path): An SVG, PNG or PDF file.
        title (str): Defaults to '', for the name of the class.
        size (int): Height and width of the image that resolutions are given
            for. Defaults to 224.

    Raises:
        ValueError: If the backbone is no FishNet.
    """
    # Here: the tools that draw nothing start faster.
    import matplotlib
    from matplotlib.figure import Figure

    if not isinstance(fish, FishNet):
        raise ValueError(f'{type(fish).__name__} is no FishNet; only a fish '
                         'can be drawn as one.')
    # The same file each time.
    with matplotlib.rc_context({'svg.hashsalt': 'mmfishnet'}):
        figure = Figure(figsize=(15, 9.714))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(-0.9, 14.85)
        axes.set_ylim(-1.6, 8.6)
        axes.set_aspect('equal')
        axes.axis('off')
        _Picture(axes, fish, report, size).draw(title or type(fish).__name__)
        metadata = dict(Date=None) if Path(path).suffix == '.svg' else None
        figure.savefig(path, dpi=130, facecolor='white', metadata=metadata)


class _Picture:

    def __init__(self, axes, fish: FishNet, report: DirectBP,
                 size: int) -> None:
        self.axes = axes
        self.fish = fish
        self.report = report
        self.size = size
        self.reached, self.direct = find_direct_edges(fish, report)
        self.edges = {(edge.source, edge.target): edge
                      for edge in find_edges(fish)}
        stem = fish.arch['stem_channels']
        self.specs = {spec.name: spec for spec in fish.specs}
        # Where each output stands, and the channels that it is joined of.
        self.places = dict(stem=(COLUMNS['tail'], _height(STEM_STRIDE)))
        self.channels = dict(stem=(stem, ))
        for spec in fish.specs:
            column = 'body' if spec.part == 'bridge' else spec.part
            height = _height(spec.out_stride)
            if spec.part == 'head' and spec.out_stride == spec.in_stride:
                # The last stage, of which the refined feature is the output.
                height -= LEVEL_HEIGHT - 0.6
            self.places[spec.name] = (COLUMNS[column], height)
            self.channels[spec.name] = (spec.channels, )
            if spec.joins:
                self.channels[spec.name] += (spec.joined_channels, )

    def draw(self, title: str) -> None:
        self._background(title)
        self._stem()
        for spec in self.fish.specs:
            self._stage(spec)
            if spec.joins:
                self._transfer(spec)
        for name in self.places:
            self._feature(name)
        self._output()
        self._legend()

    # Strokes.

    def _text(self, x, y, text, size=9.5, color=INK, **kwargs) -> None:
        style = dict(ha='left', va='center', zorder=9)
        self.axes.text(x, y, text, fontsize=size, color=color,
                       **{**style, **kwargs})

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
        style = dict(
            color=DIRECT if direct else GREY, zorder=5 if direct else 4)
        self.axes.plot(
            *zip(*points),
            linewidth=5 if direct else 2.2,
            linestyle='-' if direct else (0, (2.2, 1.4)),
            solid_capstyle='round',
            solid_joinstyle='round',
            dash_capstyle='butt',
            **style)
        if arrow:
            (x0, y0), (x1, y1) = points[-2:]
            self.axes.annotate(
                '',
                xy=(x1, y1),
                xytext=(x1 - (x1 - x0) * 1e-3, y1 - (y1 - y0) * 1e-3),
                arrowprops=dict(
                    arrowstyle='-|>',
                    mutation_scale=24 if direct else 17,
                    color=style['color'],
                    shrinkA=0,
                    shrinkB=0),
                zorder=style['zorder'])

    def _box(self, x, y, width, height, color, fill='white') -> None:
        from matplotlib.patches import FancyBboxPatch
        self.axes.add_patch(
            FancyBboxPatch((x, y),
                           width,
                           height,
                           boxstyle='round,pad=0,rounding_size=0.12',
                           facecolor=fill,
                           edgecolor=color,
                           linewidth=1.5,
                           zorder=3))

    def _isolated(self, x, y, number: int, horizontal: bool = False) -> None:
        for i in range(number):
            shift = (i - (number - 1) / 2) * 0.36
            self.axes.plot(
                x + shift if horizontal else x,
                y if horizontal else y + shift,
                's',
                color=ICONV,
                markeredgecolor=INK,
                markeredgewidth=1.2,
                markersize=12,
                zorder=7)

    # Parts.

    def _background(self, title: str) -> None:
        from matplotlib.patches import FancyBboxPatch
        for part, (color, fill) in PARTS.items():
            x = COLUMNS[part] - 1.45
            self.axes.add_patch(
                FancyBboxPatch((x, -0.62),
                               3.55,
                               3 * LEVEL_HEIGHT + 1.22,
                               boxstyle='round,pad=0,rounding_size=0.3',
                               facecolor=fill,
                               edgecolor='none',
                               zorder=0))
            self._text(
                x + 0.18,
                -0.4,
                part.upper(),
                13,
                color,
                weight='bold')
        for stride in (4, 8, 16, 32):
            y = _height(stride)
            self.axes.plot([0.55, 14.25], [y, y],
                           color='#c5cdd5',
                           linewidth=0.9,
                           linestyle=(0, (1, 3)),
                           zorder=1)
            side = -(-self.size // stride)
            self._text(0.45, y + 0.12, f'{side}×{side}', 10.5, ha='right')
            self._text(0.45, y - 0.16, f'1/{stride}', 9, GREY, ha='right')
        self._text(4.6, 8.2, title, 20, weight='bold')
        self._text(
            4.6, 7.72,
            'Where the gradient of the output goes, against the arrows, '
            'without passing a convolution', 12, '#5b6875')

    def _stem(self) -> None:
        x, y = self.places['stem']
        edge = self.edges['image', 'stem']
        top = y + 1.1
        self._box(x - 0.3, top - 0.27, BLOCK_WIDTH, 0.54, GREY)
        isolated = find_isolated(edge, self.report)
        self._line([(x, top + 0.62), (x, y + 0.1)], edge, (x, top))
        self._isolated(x, top, min(len(isolated), 1))
        many = f'stem: {len(isolated)} conv' if isolated else 'stem'
        self._text(x + 0.26, top, many, 10, weight='bold')
        self._text(
            x, top + 0.78, f'image {self.size}×{self.size}', 10, ha='center')

    def _stage(self, spec: StageSpec) -> None:
        edge = self.edges[spec.reads, spec.name]
        start, end = self.places[spec.reads], self.places[spec.name]
        isolated = find_isolated(edge, self.report)
        inside = [m for m in isolated if m.startswith(edge.modules[0])]
        outside = len(isolated) - len(inside)
        if spec.part == 'bridge':
            self._bridge(spec, edge, start, end, len(inside))
            return
        color = PARTS[spec.part][0]
        (x0, y0), (x, y1) = start, end
        down = 1 if y1 > y0 else -1
        middle, sampling = y0 + down * 0.8, y0 + down * (LEVEL_HEIGHT - 0.55)
        points = [(x, y0 + 0.1 * down), (x, y1 - 0.1 * down)]
        if x0 != x:
            points = [start, (x, y0), points[-1]]
        last = (x, sampling if outside else middle) if isolated else None
        self._line(points, edge, last)
        self._box(x - 0.3, middle - 0.37, BLOCK_WIDTH, 0.74, color)
        self._isolated(x, middle, len(inside))
        self._text(
            x + 0.26, middle + 0.14, spec.name, 11, color, weight='bold')
        details = f'{spec.blocks} block' + 's' * (spec.blocks > 1)
        if spec.dilation > 1:
            details += f', dilation {spec.dilation}'
        if spec.reduction > 1:
            self._text(
                x + 1.54,
                middle + 0.14,
                f'r  k={spec.reduction}',
                9,
                ha='right',
                style='italic')
        self._text(x + 0.26, middle - 0.15, details, 9)
        label = 'nearest ×2' if down > 0 else DOWN_LABELS[
            self.fish.down_sample]
        if spec.out_stride != spec.in_stride:
            self._isolated(x, sampling, outside)
            self._text(
                x + 0.22, sampling, label, 8.5, '#5b6875', style='italic')

    def _bridge(self, spec, edge, start, end, isolated: int) -> None:
        (x0, y), (x1, _) = start, end
        middle = (x0 + x1) / 2
        self._line([(x0, y), (x1 - self._width(spec.name) / 2 - 0.06, y)],
                   edge, (middle + (isolated - 1) * 0.18, y))
        self._box(middle - 0.92, y - 0.8, 1.84, 1.04, GREY)
        self._isolated(middle, y, isolated, horizontal=True)
        self._text(
            middle, y - 0.33, 'bridge', 11, INK, ha='center', weight='bold')
        self._text(
            middle,
            y - 0.6,
            f'{spec.blocks} blocks, SE gate',
            9,
            ha='center')

    def _transfer(self, spec: StageSpec) -> None:
        edge = self.edges[spec.joins, spec.name]
        (x0, y), (x1, _) = self.places[spec.joins], self.places[spec.name]
        middle = (x0 + x1) / 2
        width = self._width(spec.name)
        self._line([(x0, y), (x1 - width / 2 - 0.06, y)], edge)
        self._box(middle - 0.55, y - 0.48, 1.1, 0.66, GREY)
        self._isolated(middle, y, len(find_isolated(edge, self.report)))
        self._text(
            middle,
            y - 0.28,
            f'T: {spec.transfer_blocks} block' + 's' *
            (spec.transfer_blocks > 1),
            9,
            ha='center')

    def _width(self, name: str) -> float:
        return sum(self.channels[name])**0.5 / 30

    def _feature(self, name: str) -> None:
        """A bar as wide as the root of its channels, in its parts' colours."""
        from matplotlib.patches import Rectangle
        x, y = self.places[name]
        channels = self.channels[name]
        width = self._width(name)
        spec = self.specs.get(name)
        parts = ['tail' if spec is None else spec.part]
        if len(channels) > 1:
            joined = self.specs.get(spec.joins)
            parts.append('tail' if joined is None else joined.part)
        left = x - width / 2
        for part, number in zip(parts, channels):
            share = width * number / sum(channels)
            color = PARTS['body' if part == 'bridge' else part][0]
            self.axes.add_patch(
                Rectangle((left, y - 0.1),
                          share,
                          0.2,
                          facecolor=color,
                          edgecolor='white',
                          linewidth=1,
                          zorder=6))
            left += share
        label = f'{sum(channels)}'
        if len(channels) > 1:
            label += '  =  ' + ' + '.join(map(str, channels))
        self._text(x + 0.14, y + 0.24, label, 9.5, weight='bold')

    def _output(self) -> None:
        x, y = self.places[self.fish.specs[-1].name]
        self._text(x, y - 0.32, 'output', 11.5, DIRECT, ha='center',
                   weight='bold')

    def _legend(self) -> None:
        y = -1.15
        self.axes.plot([0, 0.8], [y, y],
                       color=DIRECT,
                       linewidth=5,
                       solid_capstyle='round')
        self._text(1.0, y, 'direct path from the output')
        self.axes.plot([4.3, 5.1], [y, y],
                       color=GREY,
                       linewidth=2.2,
                       linestyle=(0, (2.2, 1.4)))
        self._text(5.3, y, 'blocked by an isolated convolution')
        self._isolated(9.0, y, 1)
        self._text(9.25, y, 'isolated convolution')
        self._text(11.6, y, 'T  transfer   r  channel reduction')
