# Copyright (c) mmfishnet authors. All rights reserved.
"""Convert a FishNet checkpoint.

Takes files of the authors, of pytorchcv, and of ours; never runs code that a
file may hold.
"""
import argparse

from mmfishnet.checkpoints import CheckpointError
from mmfishnet.models.convert import TARGETS, convert_file


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', help='checkpoint to read')
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument(
        '--to',
        choices=TARGETS,
        default='mmpretrain',
        help='mmpretrain: a whole classifier, which detectors take too; '
        "mmdet: its backbone alone; official: what the authors' code takes by "
        "load_state_dict(torch.load(DST)['state_dict']), without DataParallel "
        '(default: mmpretrain)')
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        name = convert_file(args.src, args.dst, args.to)
    except (CheckpointError, ImportError, OSError) as error:
        raise SystemExit(f'convert_checkpoint.py: {error}') from None
    print(f'{args.dst}: {name} for {args.to}.')


if __name__ == '__main__':
    main()
