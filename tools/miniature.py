# Copyright (c) mmfishnet authors. All rights reserved.
"""FishNet and a ResNet of as many parameters, from pretraining to Mask R-CNN.

The paper's central claim in miniature, on drawn shapes, over several seeds.
If it is stopped, the same command goes on where it was.
"""
import argparse
from pathlib import Path

from mmfishnet.analysis.miniature import FULL, QUICK, Study, write_report


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--work-dir',
        type=Path,
        default='work_dirs/miniature',
        help='where data, runs and the report go (default: %(default)s)')
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        default=[0, 1, 2],
        help='default: 0 1 2')
    parser.add_argument(
        '--jobs',
        type=int,
        default=2,
        help='runs at a time, of one thread each (default: %(default)s)')
    parser.add_argument(
        '--quick',
        action='store_true',
        help='an epoch on a handful of images, to see that it works')
    return parser.parse_args()


def main():
    args = parse_args()
    study = Study(
        args.work_dir.resolve(),
        Path(__file__).resolve().parents[1],
        seeds=args.seeds,
        scale=QUICK if args.quick else FULL,
        jobs=args.jobs)
    try:
        report = write_report(study.run(), args.work_dir)
    except (ValueError, RuntimeError) as error:
        raise SystemExit(f'miniature.py: {error}') from None
    except KeyboardInterrupt:
        raise SystemExit(
            '\nminiature.py: stopped; the same command goes on.') from None
    print(f'\n{report.read_text()}\n{report.resolve()}')


if __name__ == '__main__':
    main()
