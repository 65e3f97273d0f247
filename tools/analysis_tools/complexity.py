# Copyright (c) mmfishnet authors. All rights reserved.
"""Parameters, multiply-adds and training memory of FishNet and its peers."""
import argparse
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from mmfishnet.analysis.complexity import (
    complexity_table,
    draw_figure4,
    measure,
    write_csv,
)
from mmfishnet.analysis.peers import NETWORKS, find_network


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'models',
        nargs='*',
        metavar='MODEL',
        help=f'{", ".join(NETWORKS)}, or a config, of which the backbone is '
        'measured (default: all but configs)')
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        default=[224],
        metavar='N',
        help='height and width of the image (default: 224)')
    parser.add_argument(
        '--batch',
        type=int,
        default=32,
        metavar='N',
        help='images in a training batch (default: 32)')
    parser.add_argument(
        '--device',
        default='cpu',
        help="where to run; 'meta' records the same graph without computing "
        'anything, which takes seconds (default: cpu)')
    parser.add_argument('--csv', type=Path, metavar='FILE', help='exact table')
    parser.add_argument(
        '--figure4', type=Path, metavar='FILE', help="the paper's Figure 4")
    args = parser.parse_args()
    if len(args.size) > 2 or min(args.size) < 32:
        parser.error('--size takes one or two numbers, at least 32')
    if args.batch < 1:
        parser.error('--batch should be at least 1')
    return args


def main():
    args = parse_args()
    size = (args.size[0], args.size[-1])
    rows = []
    try:
        networks = [find_network(model) for model in args.models or NETWORKS]
        for network in track(
                networks,
                'measuring',
                console=Console(stderr=True),
                transient=True):
            with torch.device(args.device):
                model = network.build()
            rows.append((network, measure(model, size)))
        for file in (args.csv, args.figure4):
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
        if args.figure4:
            draw_figure4(rows, args.figure4)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f'error: {error}') from None
    if args.csv:
        write_csv(rows, args.csv, args.batch)
    width = None if sys.stdout.isatty() else 140
    Console(width=width).print(complexity_table(rows, args.batch))


if __name__ == '__main__':
    main()
