# Copyright (c) mmfishnet authors. All rights reserved.
"""Find where a backbone's gradient goes without passing a convolution."""
import argparse
import re
from pathlib import Path

from direct_paths import find_direct_paths, make_image, measure_gradients
from fish_picture import draw_fish
from mmfishnet.engine.errors import short_errors
from networks import NETWORKS, find_network
from tables import Cells

CAPTION = (
    'Row: where the gradient comes from. Column: the earlier feature that it '
    'reaches, and the fewest convolutions on a path between them; ✓ is none, '
    "direct BP. Right: RMS of the gradient of the row's feature when that of "
    'each output is 1 and all message convolutions are zero: along all paths, '
    'and along direct paths alone.')


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('model', nargs='?', default='fishnet150', metavar='MODEL',
        help=f'{", ".join(NETWORKS)}, or a config (default: fishnet150)')
    add('--stages', nargs='+', metavar='MODULE',
        help='modules whose outputs are looked at (default: the stages)')
    add('--size', type=int, default=64, metavar='N',
        help='height and width of the image to run on (default: 64)')
    add('--svg', type=Path, metavar='FILE', help='draw the fish')
    add('--png', type=Path, metavar='FILE', help='likewise')
    return parser.parse_args()


def tabulate_paths(backbone, paths, size, title):
    """The features: who reaches them, how, and a measurement."""
    images = make_image(backbone, size)
    gradients = [measure_gradients(backbone, paths, images, isolated=isolated)
                 for isolated in (True, False)]
    reached = set(paths.direct())
    rows = []
    for feature in paths.features:
        name = feature.name
        convs = (paths.convs.get((name, earlier.name), '')
                 for earlier in paths.features[:-1])
        rows.append([
            f'[bold green]{name}[/]' if name in reached else name,
            str(feature.channels), str(feature.stride),
            *('[bold green]✓[/]' if n == 0 else str(n) for n in convs),
            *(f'{g[name].square().mean().sqrt():.2g}' for g in gradients)
        ])
    # The number on a line of its own keeps the columns narrow.
    names = (re.sub(r'\.?(\d+)$', r'\n\1', feature.name)
             for feature in paths.features[:-1])
    return Cells(('From', 'C', '1/', *names, 'RMS', 'direct'), rows,
                 f'{title}: convolutions between features', CAPTION)


def tabulate_isolated(backbone, paths):
    rows = []
    for conv in paths.isolated:
        weight = backbone.get_submodule(conv.module).weight
        kernel = 'x'.join(map(str, weight.shape[2:])) or 'linear'
        rows.append((', '.join(conv.before), ', '.join(conv.after),
                     conv.module,
                     f'{kernel}, {weight.shape[1]} → {weight.shape[0]}'))
    return Cells(('From', 'to', 'Module', 'Convolution'), rows,
                 f'{len(rows)} isolated convolutions (of '
                 f'{len(paths.weighted)})', names=4)


def main():
    args = parse_args()
    with short_errors(ValueError, FileNotFoundError):
        network = find_network(args.model)
        backbone = network.backbone()
        stages = args.stages and dict(zip(args.stages, args.stages))
        paths = find_direct_paths(backbone, args.size, stages)
        for file in filter(None, (args.svg, args.png)):
            file.parent.mkdir(parents=True, exist_ok=True)
            draw_fish(backbone, paths, file, network.title)
    tabulate_paths(backbone, paths, args.size, network.title).show()
    tabulate_isolated(backbone, paths).show()
    print('Reached directly from the output:', ', '.join(paths.direct()))


if __name__ == '__main__':
    main()
