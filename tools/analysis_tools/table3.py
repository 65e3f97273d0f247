# Copyright (c) mmfishnet authors. All rights reserved.
"""Print Table 3 of the paper with the results of finished runs beside it."""
import argparse
from pathlib import Path

from rich.console import Console

from mmfishnet.analysis.table3 import (
    COLUMNS,
    missing_configs,
    plot,
    read_run,
    tabulate,
    to_markdown,
    to_rich,
)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'work_dirs',
        nargs='*',
        metavar='WORK_DIR',
        help='work folders of tools/train.py or tools/test.py; which cell of '
        'the table one is, is read from the config in it')
    parser.add_argument(
        '--best',
        action='store_true',
        help='take the epoch with the best AP (of masks, for Mask R-CNN) '
        'instead of the last one')
    parser.add_argument(
        '--markdown', type=Path, metavar='FILE', help='write the table here')
    parser.add_argument(
        '--plot', type=Path, metavar='FILE', help='draw the table here (.png)')
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        runs = [read_run(path, args.best) for path in args.work_dirs]
        rows = tabulate(runs)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'error: {error}') from None
    console = Console()
    if not console.is_terminal:
        console.width = 120  # rich would take 80, which folds the numbers
    whole = to_rich(rows)
    unlimited = console.options.update(max_width=10**4)
    if console.measure(whole, options=unlimited).maximum <= console.width:
        console.print(whole)
    else:
        for column in COLUMNS:
            console.print(to_rich(rows, [column]))
    for run in runs:
        console.print(str(run), soft_wrap=True, highlight=False)
    for config in missing_configs(runs):
        console.print(
            f'missing: configs/{config}', soft_wrap=True, highlight=False)
    if args.markdown:
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        args.markdown.write_text(to_markdown(rows), encoding='utf-8')
    if args.plot:
        args.plot.parent.mkdir(parents=True, exist_ok=True)
        plot(rows, args.plot)


if __name__ == '__main__':
    main()
