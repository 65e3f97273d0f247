# Copyright (c) mmfishnet authors. All rights reserved.
"""Write one self-contained HTML page about one or several trainings."""
import argparse

import mmfishnet  # noqa: F401 (registers FishNet)
from mmfishnet.engine.errors import short_errors


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='Models are run on the validation set of their config, by its '
        'own evaluator; of detectors AP by class and size, precision and '
        'recall, of all confusion, and pictures beside the truth.')
    add = parser.add_argument
    add('work_dirs', nargs='+', metavar='WORK_DIR',
        help='work directories of trainings; several are shown side by side')
    add('--out', metavar='FILE',
        help='the page; by default report.html in the first work directory')
    add('--max-images', type=int, metavar='N',
        help='run the models on the first N images of the validation set only')
    add('--score-thr', type=float, default=0.3,
        help='what counts as found in pictures and confusion '
        '(default: %(default)s)')
    add('--no-predict', action='store_true',
        help='do not run the models: what was logged only')
    add('--device', help='such as cpu or cuda:0; by default the GPU, if any')
    return parser.parse_args()


def main():
    args = parse_args()
    out = args.out or f'{args.work_dirs[0]}/report.html'
    with short_errors():
        # Takes seconds; --help does not need it.
        from mmfishnet.checkpoints import use_safe_loading
        from mmfishnet.engine.noise import leave_out_noise
        from mmfishnet.report import write_report
        from mmfishnet.work_dir import read_runs
        leave_out_noise()
        use_safe_loading()
        notes = write_report(
            read_runs(args.work_dirs), out, args.device, args.max_images,
            args.score_thr, not args.no_predict)
    print(*notes, out, sep='\n')


if __name__ == '__main__':
    main()
