# Copyright (c) mmfishnet authors. All rights reserved.
"""Draw a data set of shapes, for detection or for classification."""
import argparse
import time
from pathlib import Path

from mmfishnet.datasets import draw_classification, draw_coco


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path, help='folder to draw to')
    parser.add_argument(
        '--task', choices=['coco', 'cls'], default='coco',
        help='coco: instance segmentation in the layout of COCO 2017; '
        'cls: one object per image, one folder per class (default: coco)')
    parser.add_argument(
        '--train', type=int, help='training images (default: 2400; cls: 7200)')
    parser.add_argument(
        '--val', type=int, help='validation images (default: 200; cls: 480)')
    parser.add_argument(
        '--size', type=int,
        help='height and width in pixels (default: 192; cls: 64)')
    parser.add_argument('--seed', type=int, help='default: 0')
    parser.add_argument(
        '--clutter', type=float,
        help='0 for plain objects on plain backgrounds, 1 for strong textures '
        '(default: 0.3)')
    parser.add_argument(
        '--overwrite', action='store_true',
        help='replace a set drawn with other parameters; files that were not '
        'drawn by this tool are never replaced')
    return parser.parse_args()


def main():
    args = parse_args()
    draw = draw_coco if args.task == 'coco' else draw_classification
    given = {key: value
             for key, value in vars(args).items()
             if key not in ('out', 'task', 'overwrite') and value is not None}
    start = time.perf_counter()
    try:
        drawn = draw(
            args.out, **given, overwrite=args.overwrite, progress=True)
    except (ValueError, FileExistsError) as error:
        raise SystemExit(f'draw_shapes.py: {error}') from None
    if drawn:
        print(f'Drew shapes to {args.out} '
              f'in {time.perf_counter() - start:.1f} s.')
    else:
        print(f'{args.out} holds this set already; nothing to do.')


if __name__ == '__main__':
    main()
