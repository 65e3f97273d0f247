# Copyright (c) mmfishnet authors. All rights reserved.
"""Draw learning rate, warm-up and gradient clipping of a config's run."""
import argparse
from pathlib import Path

import numpy as np
from mmengine.config import Config, DictAction

import mmfishnet  # noqa: F401 (configs may inherit from 'mmfishnet::')
from mmfishnet.analysis.schedule import (
    MANY_PHASES,
    epoch_length,
    plot,
    simulate,
)
from mmfishnet.checks.schedule import check_schedule


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--epoch-length',
        type=int,
        metavar='N',
        help='iterations in an epoch (default: those of COCO train2017 or '
        'ImageNet with the batch size auto_scale_lr.base_batch_size)')
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help='picture (default: CONFIG_schedule.png here)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config')
    return parser.parse_args()


def main():
    args = parse_args()
    name = Path(args.config).stem
    out = args.out or Path(f'{name}_schedule.png')
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    try:
        length = (
            epoch_length(cfg)
            if args.epoch_length is None else args.epoch_length)
        for problem in check_schedule(cfg, length):
            print(problem)
        schedule = simulate(cfg, length)
    except ValueError as error:
        raise SystemExit(f'error: {error}') from None

    def when(begin, end):
        return f'epochs {round(begin / length, 2):g} to ' \
               f'{round(end / length, 2):g}'

    print(f'{len(schedule.lr)} iterations, {length} in an epoch')
    phases, end = schedule.phases, 0
    if len(phases) > MANY_PHASES:
        print(f'{when(phases[0].begin, phases[-1].end)}: learning rate '
              f'{phases[0].first_lr:.3g} to {phases[-1].last_lr:.3g} in '
              f'{len(phases)} phases')
        phases = []
    for phase in phases:
        rates = dict.fromkeys((f'{phase.first_lr:.3g}',
                               f'{phase.last_lr:.3g}'))
        # The last iteration of a warm-up is the first with the full rate.
        print(f'{when(max(phase.begin, end), phase.end)}: learning rate '
              f'{" to ".join(rates)}')
        end = phase.end
    clipped = np.flatnonzero(~np.isnan(schedule.max_norm))
    if len(clipped):
        print(f'{when(clipped[0], clipped[-1] + 1)}: '
              f'gradients clipped to {schedule.max_norm[clipped[0]]:g}')
    out.parent.mkdir(parents=True, exist_ok=True)
    plot(schedule, out, name)
    print(out)


if __name__ == '__main__':
    main()
