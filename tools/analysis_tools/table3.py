# Copyright (c) mmfishnet authors. All rights reserved.
"""Print Table 3 of the paper with the results of finished runs beside it."""
from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmengine.config import Config
from rich.console import Console
from rich.table import Table

# AP, AP_S, AP_M, AP_L in per cent
Scores = tuple[float, float, float, float]

METRICS = {'AP': 'mAP', 'AP_S': 'mAP_s', 'AP_M': 'mAP_m', 'AP_L': 'mAP_l'}


class Column(NamedTuple):
    """A column of the table: what a detector is evaluated on."""

    detector: str
    task: str
    title: str


COLUMNS = (
    Column('MaskRCNN', 'segm', 'Mask R-CNN, masks'),
    Column('MaskRCNN', 'bbox', 'Mask R-CNN, boxes'),
    Column('FasterRCNN', 'bbox', 'FPN, boxes'),
)

# Those marked with a dagger, like FishNet-150, were trained by the authors.
PAPER: dict[str, tuple[Scores, Scores, Scores]] = {
    'ResNet-50 [5]': ((34.5, 15.6, 37.1, 52.1), (38.6, 22.2, 41.5, 50.8),
                      (37.9, 21.5, 41.1, 49.9)),
    'ResNet-50†': ((34.7, 18.5, 37.4, 47.7), (38.7, 22.3, 42.0, 51.2),
                   (38.0, 21.4, 41.6, 50.1)),
    'ResNeXt-50 (32x4d)†': ((35.7, 19.1, 38.5, 48.5), (40.0, 23.1, 43.0, 52.8),
                            (39.3, 23.2, 42.3, 51.7)),
    'FishNet-150': ((37.0, 19.8, 40.2, 50.3), (41.5, 24.1, 44.9, 55.0),
                    (40.6, 23.3, 43.9, 53.7)),
}

# Our name: that of the paper's row, and of the backbone in our configs
BACKBONES = {
    'ResNet-50': ('ResNet-50†', 'r50'),
    'ResNeXt-50 (32x4d)': ('ResNeXt-50 (32x4d)†', 'x50_32x4d'),
    'FishNet-150': ('FishNet-150', 'fishnet150'),
}
DETECTORS = {'MaskRCNN': 'mask_rcnn', 'FasterRCNN': 'faster_rcnn'}


@dataclass
class Run:
    """What a finished run has to say.

    Attributes:
        work_dir (Path): Its folder.
        detector (str): 'MaskRCNN' or 'FasterRCNN'.
        backbone (str): Such as 'FishNet-150'.
        scores (dict[str, Scores]): AP, AP_S, AP_M and AP_L in per cent of
            'bbox' and, for Mask R-CNN, 'segm'.
        source (str): Where the scores come from, such as 'epoch 32 of 32'.
        ann_file (str): The annotations that they were measured on.
    """

    work_dir: Path
    detector: str
    backbone: str
    scores: dict[str, Scores]
    source: str
    ann_file: str

    def __str__(self) -> str:
        return (f'{self.detector}, {self.backbone}: {self.source}, '
                f'{self.ann_file} ({self.work_dir})')


class Row(NamedTuple):
    """A row of the table; None where there is nothing to say."""

    backbone: str
    source: str
    cells: Sequence[Scores | None]

    @property
    def is_difference(self) -> bool:
        return (self.backbone.startswith('vs. ')
                or self.source == 'ours - paper')


def read_run(work_dir: str | os.PathLike, best: bool = False) -> Run:
    """Read a run of tools/train.py or tools/test.py from its work folder.

    Which cell of the table it is, is told by the config that MMEngine left
    there. The evaluations during the training count, over all resumed parts;
    where there are none, the latest result of a test.

    Args:
        work_dir (str | os.PathLike): The folder.
        best (bool): Whether to take the epoch with the best AP (of masks, for
            Mask R-CNN) instead of the last one. Defaults to False.

    Returns:
        Run: The run.

    Raises:
        FileNotFoundError: If the folder is not there, or holds no run or no
            evaluation.
        ValueError: If the run belongs to no cell of the table.
    """
    work_dir = Path(work_dir)
    if not work_dir.is_dir():
        raise FileNotFoundError(f'the folder {work_dir} does not exist.')
    # One folder for each time that the run was started, named by the time
    parts = sorted(path.parent.parent
                   for path in (*work_dir.glob('vis_data/config.py'),
                                *work_dir.glob('*/vis_data/config.py')))
    if not parts:
        raise FileNotFoundError(
            f'{work_dir} is not the work folder of a run: it has no '
            '*/vis_data/config.py, which tools/train.py and tools/test.py '
            'leave in their --work-dir.')
    cfg = Config.fromfile(
        parts[-1] / 'vis_data' / 'config.py', import_custom_modules=False)
    model = cfg.model
    while 'module' in model:  # test-time augmentation
        model = model.module
    detector, neck = _class_name(model), _class_name(model.get('neck', {}))
    if detector not in DETECTORS or neck != 'FPN':
        raise ValueError(
            f'{work_dir}: {detector} with the neck {neck} is not in Table 3, '
            f'which has {" and ".join(DETECTORS)} with FPN.')
    tasks = [column.task for column in COLUMNS if column.detector == detector]

    epochs, tests = {}, []
    for part in parts:
        scalars = part / 'vis_data' / 'scalars.json'
        lines = scalars.read_text().splitlines() if scalars.exists() else ()
        for line in map(json.loads, lines):
            if (scores := _scores(line, tasks)):
                epochs[line['step']] = scores
        for path in part.glob('*.json'):
            if (scores := _scores(json.loads(path.read_text()), tasks)):
                tests.append(scores)
    if epochs:
        epoch = max(epochs, key=lambda e: (best and epochs[e][tasks[0]][0], e))
        scores = epochs[epoch]
        source = (f'{"best" if best else "last"} epoch, {epoch} of '
                  f'{cfg.train_cfg.get("max_epochs", "?")}')
    elif tests:
        scores, source = tests[-1], 'test'
    else:
        raise FileNotFoundError(
            f'{work_dir} is the work folder of a run, but holds no result of '
            f'an evaluation of {" and ".join(tasks)}; let it run to the end '
            'of an epoch, or test one of its checkpoints with tools/test.py '
            'and the same --work-dir.')
    evaluator = cfg.get('val_evaluator') or cfg.test_evaluator
    return Run(work_dir, detector, backbone_name(model.backbone), scores,
               source, evaluator.ann_file)


def _class_name(cfg: dict) -> str:
    """'MaskRCNN', for 'MaskRCNN', 'mmdet.MaskRCNN' or a dumped class."""
    return str(cfg.get('type')).split('.')[-1]


def backbone_name(backbone: dict) -> str:
    """How the table calls a backbone.

    Args:
        backbone (dict): Its config.

    Returns:
        str: Such as 'FishNet-150' or 'ResNeXt-50 (32x4d)'.
    """
    name = _class_name(backbone)
    if name in ('FishNet', 'FishNeXt'):
        depth = backbone.get('depth', 150)
    else:
        depth = backbone.get('depth')
    if isinstance(depth, int):
        name += f'-{depth}'
    elif depth is not None:
        name += ' (own stage table)'
    if name.startswith('ResNeXt'):
        name += (f' ({backbone.get("groups", 1)}x'
                 f'{backbone.get("base_width", 4)}d)')
    return name


def _scores(logged: dict, tasks: Iterable[str]) -> dict[str, Scores] | None:
    """The scores in a line of a log, None if it is no evaluation."""
    names = {
        task: [f'coco/{task}_{name}' for name in METRICS.values()]
        for task in tasks
    }
    if any(key not in logged for keys in names.values() for key in keys):
        return None
    # COCO's tools say -1 where there is no object of a size.
    return {
        task: tuple(
            100 * logged[key] if logged[key] >= 0 else math.nan
            for key in keys)
        for task, keys in names.items()
    }


def tabulate(runs: Sequence[Run]) -> list[Row]:
    """Arrange Table 3 with our numbers and the differences beside it.

    Args:
        runs (Sequence[Run]): At most one for each cell.

    Returns:
        list[Row]: The rows. 'ours' is empty where runs are missing; backbones
        that are not in the paper follow it.

    Raises:
        ValueError: If two runs belong to the same cell.
    """
    cells = {}
    for run in runs:
        first = cells.setdefault((run.backbone, run.detector), run)
        if first is not run:
            raise ValueError(
                f'both {first.work_dir} and {run.work_dir} are runs of '
                f'{run.detector} with {run.backbone}; give one of them.')

    def ours(backbone):
        found = [cells.get((backbone, column.detector)) for column in COLUMNS]
        return [
            run and run.scores[column.task]
            for run, column in zip(found, COLUMNS)
        ]

    rows = [Row('ResNet-50 [5]', 'paper', PAPER['ResNet-50 [5]'])]
    for backbone, (name, _) in BACKBONES.items():
        rows += [
            Row(name, 'paper', PAPER[name]),
            Row(backbone, 'ours', ours(backbone)),
            Row('', 'ours - paper', _differences(ours(backbone), PAPER[name]))
        ]
    fish = 'FishNet-150'
    for backbone, (name, _) in BACKBONES.items():
        if backbone == fish:
            continue
        rows += [
            Row(f'vs. {name}', 'paper',
                _differences(PAPER[fish], PAPER[name])),
            Row(f'vs. {backbone}', 'ours',
                _differences(ours(fish), ours(backbone)))
        ]
    others = {run.backbone for run in runs} - set(BACKBONES)
    rows += [Row(name, 'ours', ours(name)) for name in sorted(others)]
    return rows


def missing_configs(runs: Sequence[Run]) -> list[str]:
    """Which of the paper's runs are not there.

    Args:
        runs (Sequence[Run]): Those that are.

    Returns:
        list[str]: The configs of ours to be run, see
        :func:`mmfishnet.config_path`.
    """
    there = {(run.backbone, run.detector) for run in runs}
    return [
        f'{prefix}_{suffix}_fpn.py'
        for backbone, (_, suffix) in BACKBONES.items()
        for detector, prefix in DETECTORS.items()
        if (backbone, detector) not in there
    ]


def _differences(ours: Sequence[Scores | None],
                 theirs: Sequence[Scores | None]) -> list[Scores | None]:
    return [
        a and b and tuple(x - y for x, y in zip(a, b))
        for a, b in zip(ours, theirs)
    ]


def _texts(row: Row) -> list[str]:
    """A row in the paper's form, '37.0/19.8/40.2/50.3'."""

    def text(score):
        if math.isnan(score):
            return '-'
        # Not -0.0
        score = round(score, 1) + 0.0
        return f'{score:+.1f}' if row.is_difference else f'{score:.1f}'

    return [
        row.backbone, row.source,
        *('/'.join(map(text, cell)) if cell else '' for cell in row.cells)
    ]


HEADER = ('Backbone', '') + tuple(
    f'{column.title}\n{"/".join(METRICS)}' for column in COLUMNS)


def to_rich(rows: Sequence[Row],
            columns: Sequence[Column] = COLUMNS) -> Table:
    """Table 3 for the terminal.

    Args:
        rows (Sequence[Row]): What :func:`tabulate` returned.
        columns (Sequence[Column]): Which columns to show, for a terminal that
            is too narrow for all. Defaults to all.

    Returns:
        rich.table.Table: To be printed by rich.
    """
    shown = [0, 1, *(2 + COLUMNS.index(column) for column in columns)]
    table = Table(title='Table 3: COCO val2017')
    for i in shown:
        table.add_column(HEADER[i], no_wrap=i > 1)
    for i, row in enumerate(rows):
        ends = row.source != 'paper' and (
            i + 1 == len(rows) or rows[i + 1].source != 'ours - paper')
        texts = _texts(row)
        table.add_row(
            *(texts[i] for i in shown),
            style='bold' if row.source == 'ours' else None,
            end_section=ends)
    return table


def to_markdown(rows: Sequence[Row]) -> str:
    """Table 3 in Markdown.

    Args:
        rows (Sequence[Row]): What :func:`tabulate` returned.

    Returns:
        str: The table, with a line break at its end.
    """
    lines = [[title.replace('\n', '<br>') for title in HEADER],
             ['---', '---', *[':-:'] * len(COLUMNS)], *map(_texts, rows)]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def plot(rows: Sequence[Row], path: str | os.PathLike) -> None:
    """Draw our numbers as bars, each within the paper's, wider and pale.

    Args:
        rows (Sequence[Row]): What :func:`tabulate` returned.
        path (str | os.PathLike): Image file to be written.
    """
    papers = {ours: PAPER[name] for ours, (name, _) in BACKBONES.items()}
    ours = {
        row.backbone: row.cells
        for row in rows if row.source == 'ours' and not row.is_difference
    }
    figure = Figure(figsize=(15, 5), layout='constrained')
    panels = figure.subplots(1, len(COLUMNS), sharey=True)
    width = 0.84 / len(ours)
    for i, (panel, column) in enumerate(zip(panels, COLUMNS)):
        for j, (backbone, cells) in enumerate(ours.items()):
            places = [
                x + (j - (len(ours) - 1) / 2) * width
                for x in range(len(METRICS))
            ]
            tops = [0] * len(METRICS)
            if backbone in papers:
                tops = papers[backbone][i]
                panel.bar(places, tops, 0.94 * width, color=f'C{j}', alpha=0.3)
            panel.bar(
                places,
                cells[i] or 0,
                0.6 * width,
                color=f'C{j}',
                label=backbone)
            for x, top, score in zip(places, tops, cells[i] or ()):
                if not math.isnan(score):
                    panel.annotate(
                        f'{score:.1f}', (x, max(top, score)),
                        xytext=(0, 3),
                        textcoords='offset points',
                        ha='center',
                        fontsize=8,
                        rotation='vertical')
        panel.set_title(column.title)
        panel.set_xticks(range(len(METRICS)), METRICS)
        panel.grid(axis='y', alpha=0.3)
        panel.set_axisbelow(True)
    panels[0].set_ylabel('COCO val2017, %')
    panels[0].margins(y=0.12)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        [*handles, Patch(color='black', alpha=0.3)],
        [*labels, 'wider and pale: the paper'],
        loc='outside lower center',
        ncols=len(labels) + 1)
    figure.savefig(path, dpi=130)


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
