# Copyright (c) mmfishnet authors. All rights reserved.
"""Find where a backbone's gradient goes without passing a convolution."""
import argparse
import sys
from pathlib import Path

from rich.console import Console

from direct_paths import examine
from direct_tables import isolated_table, paths_table
from fish_picture import draw_fish
from networks import NETWORKS, find_network


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'model',
        nargs='?',
        default='fishnet150',
        metavar='MODEL',
        help=f'{", ".join(NETWORKS)}, or a config (default: fishnet150)')
    parser.add_argument(
        '--stages',
        nargs='+',
        metavar='MODULE',
        help='modules whose outputs are looked at (default: the stages)')
    parser.add_argument(
        '--size',
        type=int,
        default=64,
        metavar='N',
        help='height and width of the image to run on (default: 64)')
    parser.add_argument(
        '--svg', type=Path, metavar='FILE', help='draw the fish')
    parser.add_argument('--png', type=Path, metavar='FILE', help='likewise')
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        network = find_network(args.model)
        backbone = network.backbone()
        report = examine(backbone, args.size,
                         args.stages and {name: name
                                          for name in args.stages})
        for file in (args.svg, args.png):
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                draw_fish(backbone, report, file, network.title)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f'error: {error}') from None
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(paths_table(backbone, report, args.size, network.title))
    console.print(isolated_table(backbone, report))
    console.print('Reached directly from the output: ' +
                  ', '.join(report.direct()))


if __name__ == '__main__':
    main()
