# Copyright (c) mmfishnet authors. All rights reserved.
"""Write one self-contained HTML page about one or several trainings."""
import argparse

import mmfishnet  # noqa: F401 (registers FishNet)
from mmfishnet.engine.errors import short_errors


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='Detectors are run on the validation set of their config, for '
        'AP by class and size, precision and recall, confusion, and pictures '
        'beside the truth.')
    parser.add_argument(
        'work_dirs',
        nargs='+',
        metavar='WORK_DIR',
        help='work directories of trainings; several are shown side by side')
    parser.add_argument(
        '--out',
        metavar='FILE',
        help='the page; by default report.html in the first work directory')
    parser.add_argument(
        '--max-images',
        type=int,
        metavar='N',
        help='run the models on the first N images of the validation set only')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='what counts as found in pictures and confusion '
        '(default: %(default)s)')
    parser.add_argument(
        '--no-predict',
        action='store_true',
        help='do not run the models: what was logged only')
    parser.add_argument(
        '--device', help='such as cpu or cuda:0; by default the GPU, if any')
    return parser.parse_args()


def main():
    args = parse_args()
    out = args.out or f'{args.work_dirs[0]}/report.html'
    with short_errors():
        # Takes seconds; --help does not need it.
        from mmfishnet.checkpoints import use_safe_loading
        from mmfishnet.report import read_run, write_report
        use_safe_loading()
        notes = write_report([read_run(folder) for folder in args.work_dirs],
                             out, args.device, args.max_images,
                             args.score_thr, not args.no_predict)
    print(*notes, out, sep='\n')


if __name__ == '__main__':
    main()
