# Copyright (c) mmfishnet authors. All rights reserved.
"""Check a config and its data against each other, as train.py and test.py do
before their first step."""
import argparse

import mmfishnet  # noqa: F401 (registers FishNet)
from mmfishnet.checks import check_config, report
from mmfishnet.engine.arguments import add_common_arguments, load_config
from mmfishnet.engine.errors import short_errors
from mmfishnet.engine.noise import leave_out_noise

PARTS = ('train', 'val', 'test')


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--parts', nargs='+', choices=PARTS, default=PARTS,
        help='whose data and evaluators are looked at (default: all)')
    add_common_arguments(parser)
    args = parser.parse_args()
    leave_out_noise()
    with short_errors():
        cfg, _ = load_config(args)
    problems = check_config(cfg, args.parts)
    print(report(problems))
    if any(problem.level == 'error' for problem in problems):
        raise SystemExit(1)


if __name__ == '__main__':
    main()
