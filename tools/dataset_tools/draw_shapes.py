# Copyright (c) mmfishnet authors. All rights reserved.
"""Draw a data set of shapes, for detection or for classification."""
import argparse
import time
from pathlib import Path

from mmfishnet.datasets import draw_classification, draw_coco


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('out', type=Path, help='folder to draw to')
    add('--task', choices=['coco', 'cls'], default='coco',
        help='coco: instance segmentation in the layout of COCO 2017; '
        'cls: one object per image, one folder per class (default: coco)')
    add('--train', type=int, help='training images (default: 2400; cls: 7200)')
    add('--val', type=int, help='validation images (default: 200; cls: 480)')
    add('--size', type=int,
        help='height and width in pixels (default: 192; cls: 64)')
    add('--seed', type=int, help='default: 0')
    add('--clutter', type=float,
        help='0 for plain objects on plain backgrounds, 1 for strong textures '
        '(default: 0.3)')
    add('--overwrite', action='store_true',
        help='replace a set drawn with other parameters; files that were not '
        'drawn by this tool are never replaced')
    return parser.parse_args()


def main():
    given = {key: value for key, value in vars(parse_args()).items()
             if value is not None}
    out, task = given.pop('out'), given.pop('task')
    start = time.perf_counter()
    try:
        drawn = (draw_coco if task == 'coco' else draw_classification)(
            out, **given, progress=True)
    except (ValueError, FileExistsError) as error:
        raise SystemExit(f'draw_shapes.py: {error}') from None
    print(f'Drew shapes to {out} in {time.perf_counter() - start:.1f} s.'
          if drawn else f'{out} holds this set already; nothing to do.')


if __name__ == '__main__':
    main()
