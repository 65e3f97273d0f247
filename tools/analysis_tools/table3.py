# Copyright (c) mmfishnet authors. All rights reserved.
"""Print Table 3 of the paper with the results of finished runs beside it."""
from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmengine.registry import MODELS

from mmfishnet.engine.errors import short_errors
from mmfishnet.kinds import dicts_in, find_class, scope_of, setting, type_name
from mmfishnet.work_dir import read_run
from tables import Cells

# AP, AP_S, AP_M, AP_L in per cent
Scores = tuple[float, float, float, float]

METRICS = {'AP': 'mAP', 'AP_S': 'mAP_s', 'AP_M': 'mAP_m', 'AP_L': 'mAP_l'}


class Column(NamedTuple):
    """A column of the table: what a detector is evaluated on."""

    detector: str
    task: str
    title: str


COLUMNS = (Column('MaskRCNN', 'segm', 'Mask R-CNN, masks'),
           Column('MaskRCNN', 'bbox', 'Mask R-CNN, boxes'),
           Column('FasterRCNN', 'bbox', 'FPN, boxes'))

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
BACKBONES = {'ResNet-50': ('ResNet-50†', 'r50'),
             'ResNeXt-50 (32x4d)': ('ResNeXt-50 (32x4d)†', 'x50_32x4d'),
             'FishNet-150': ('FishNet-150', 'fishnet150')}
DETECTORS = {'MaskRCNN': 'mask_rcnn', 'FasterRCNN': 'faster_rcnn'}


@dataclass
class Finished:
    """What a finished run has to say."""

    folder: Path
    detector: str  # 'MaskRCNN' or 'FasterRCNN'
    backbone: str  # such as 'FishNet-150'
    scores: dict[str, Scores]  # of 'bbox' and, for Mask R-CNN, 'segm'
    source: str  # such as 'last epoch, 32 of 32'
    ann_file: str  # the annotations that they were measured on

    def __str__(self) -> str:
        return (f'{self.detector}, {self.backbone}: {self.source}, '
                f'{self.ann_file} ({self.folder})')


class Row(NamedTuple):
    """A row of the table; None where there is nothing to say."""

    backbone: str
    source: str
    cells: Sequence[Scores | None]
    is_difference: bool = False


def read_finished(work_dir: str | os.PathLike, best: bool = False) -> Finished:
    """Read a run of tools/train.py or tools/test.py from its work folder.

    Which cell of the table it is, is told by the config that MMEngine left
    there. The evaluations during the training count, over all resumed parts,
    the last or the ``best`` (by AP, of masks for Mask R-CNN); where there are
    none, the latest result of a test.
    """
    run = read_run(work_dir)
    cfg = run.config
    model = cfg.model
    while 'module' in model:  # test-time augmentation
        model = model.module
    detector, neck = type_name(model), type_name(model.get('neck', {}))
    if detector not in DETECTORS or neck != 'FPN':
        raise ValueError(
            f'{work_dir}: {detector} with the neck {neck} is not in Table 3, '
            f'which has {" and ".join(DETECTORS)} with FPN.')
    tasks = [column.task for column in COLUMNS if column.detector == detector]
    epochs = {run.place(entry): scores for entry in run.val
              if (scores := _scores(entry, tasks))}
    tests = [scores for entry in run.tests
             if (scores := _scores(entry, tasks))]
    if epochs:
        epoch = max(epochs, key=lambda e: (best and epochs[e][tasks[0]][0], e))
        scores = epochs[epoch]
        source = (f'{"best" if best else "last"} epoch, {epoch:g} of '
                  f'{cfg.train_cfg.get("max_epochs", "?")}')
    elif tests:
        scores, source = tests[-1], 'test'
    else:
        raise FileNotFoundError(
            f'{work_dir} is the work folder of a run, but holds no result of '
            f'an evaluation of {" and ".join(tasks)}; let it run to the end '
            'of an epoch, or test one of its checkpoints with tools/test.py '
            'and the same --work-dir.')
    evaluators = cfg.get('val_evaluator') or cfg.get('test_evaluator')
    ann_file = next((node['ann_file'] for node in dicts_in(evaluators)
                     if node.get('ann_file')), 'unknown annotations')
    return Finished(
        Path(work_dir), detector,
        backbone_name(model.backbone, scope_of(cfg)), scores, source, ann_file)


def backbone_name(backbone: dict, scope: str | None = 'mmdet') -> str:
    """How the table calls a backbone, such as 'FishNet-150' or
    'ResNeXt-50 (32x4d)'."""
    name, cls = type_name(backbone), find_class(MODELS, backbone, scope)
    depth = setting(backbone, cls, 'depth')
    text = name
    if isinstance(depth, int):
        text += f'-{depth}'
    elif depth is not None:
        text += ' (own stage table)'
    if name == 'ResNeXt':
        text += (f' ({setting(backbone, cls, "groups", 1)}x'
                 f'{setting(backbone, cls, "base_width", 4)}d)')
    return text


def _scores(logged: dict, tasks: Sequence[str]) -> dict[str, Scores] | None:
    """The scores in a line of a log, None if it is no evaluation."""
    keys = {task: [f'coco/{task}_{name}' for name in METRICS.values()]
            for task in tasks}
    if not set().union(*keys.values()) <= set(logged):
        return None
    # COCO's tools say -1 where there is no object of a size.
    return {task: tuple(100 * logged[key] if logged[key] >= 0 else math.nan
                        for key in names) for task, names in keys.items()}


def arrange_rows(runs: Sequence[Finished]) -> list[Row]:
    """Arrange Table 3 with our numbers and the differences beside it.

    'ours' is empty where runs are missing; backbones that are not in the
    paper follow it.
    """
    cells = {}
    for run in runs:
        first = cells.setdefault((run.backbone, run.detector), run)
        if first is not run:
            raise ValueError(
                f'both {first.folder} and {run.folder} are runs of '
                f'{run.detector} with {run.backbone}; give one of them.')

    def ours(backbone):
        found = [cells.get((backbone, column.detector)) for column in COLUMNS]
        return [run and run.scores[column.task]
                for run, column in zip(found, COLUMNS)]

    def less(a, b):
        return [x and y and tuple(i - j for i, j in zip(x, y))
                for x, y in zip(a, b)]

    fish = 'FishNet-150'
    rows, against = [Row('ResNet-50 [5]', 'paper', PAPER['ResNet-50 [5]'])], []
    for backbone, (name, _) in BACKBONES.items():
        rows += [Row(name, 'paper', PAPER[name]),
                 Row(backbone, 'ours', ours(backbone)),
                 Row('', 'ours - paper', less(ours(backbone), PAPER[name]),
                     True)]
        for other, source, theirs, best in (
                (name, 'paper', PAPER[name], PAPER[fish]),
                (backbone, 'ours', ours(backbone), ours(fish))):
            if backbone != fish:
                against.append(
                    Row(f'vs. {other}', source, less(best, theirs), True))
    others = sorted({run.backbone for run in runs} - set(BACKBONES))
    return [*rows, *against, *(Row(n, 'ours', ours(n)) for n in others)]


def missing_configs(runs: Sequence[Finished]) -> list[str]:
    """Which of the paper's runs are not there: configs of ours to be run."""
    there = {(run.backbone, run.detector) for run in runs}
    return [f'{prefix}_{suffix}_fpn.py'
            for backbone, (_, suffix) in BACKBONES.items()
            for detector, prefix in DETECTORS.items()
            if (backbone, detector) not in there]


def tabulate_rows(rows: Sequence[Row]) -> Cells:
    """The table as texts in the paper's form, '37.0/19.8/40.2/50.3'."""

    def text(score, sign):
        # Not -0.0
        return '-' if math.isnan(score) else (
            f'{round(score, 1) + 0.0:{"+" if sign else ""}.1f}')

    texts = [(row.backbone, row.source, *(
        '/'.join(text(score, row.is_difference) for score in cell or ())
        for cell in row.cells)) for row in rows]
    return Cells(('Backbone', '', *(f'{column.title}\n{"/".join(METRICS)}'
                                    for column in COLUMNS)), texts,
                 'Table 3: COCO val2017', names=2)


def draw_bars(rows: Sequence[Row], path: str | os.PathLike) -> None:
    """Draw our numbers as bars, each within the paper's, wider and pale."""
    papers = {ours: PAPER[name] for ours, (name, _) in BACKBONES.items()}
    ours = {row.backbone: row.cells for row in rows
            if row.source == 'ours' and not row.is_difference}
    figure = Figure(figsize=(15, 5), layout='constrained')
    panels = figure.subplots(1, len(COLUMNS), sharey=True)
    width = 0.84 / len(ours)
    for i, (panel, column) in enumerate(zip(panels, COLUMNS)):
        for j, (backbone, cells) in enumerate(ours.items()):
            places = [x + (j - (len(ours) - 1) / 2) * width
                      for x in range(len(METRICS))]
            tops = papers[backbone][i] if backbone in papers else (0, ) * 4
            panel.bar(places, tops, 0.94 * width, color=f'C{j}', alpha=0.3)
            panel.bar(places, cells[i] or 0, 0.6 * width, color=f'C{j}',
                      label=backbone)
            for x, top, score in zip(places, tops, cells[i] or ()):
                if not math.isnan(score):
                    panel.annotate(
                        f'{score:.1f}', (x, max(top, score)), (0, 3),
                        textcoords='offset points', ha='center', fontsize=8,
                        rotation='vertical')
        panel.set_title(column.title)
        panel.set_xticks(range(len(METRICS)), METRICS)
        panel.grid(axis='y', alpha=0.3)
        panel.set_axisbelow(True)
    panels[0].set_ylabel('COCO val2017, %')
    panels[0].margins(y=0.12)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend([*handles, Patch(color='black', alpha=0.3)],
                  [*labels, 'wider and pale: the paper'],
                  loc='outside lower center', ncols=len(labels) + 1)
    figure.savefig(path, dpi=130)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('work_dirs', nargs='*', metavar='WORK_DIR',
        help='work folders of tools/train.py or tools/test.py; which cell of '
        'the table one is, is read from the config in it')
    add('--best', action='store_true',
        help='take the epoch with the best AP (of masks, for Mask R-CNN) '
        'instead of the last one')
    add('--markdown', type=Path, metavar='FILE', help='write the table here')
    add('--plot', type=Path, metavar='FILE', help='draw the table here (.png)')
    return parser.parse_args()


def main():
    args = parse_args()
    with short_errors(FileNotFoundError, ValueError):
        runs = [read_finished(path, args.best) for path in args.work_dirs]
        rows = arrange_rows(runs)
    table = tabulate_rows(rows)
    table.show()
    print(*runs, *(f'missing: configs/{config}'
                   for config in missing_configs(runs)), sep='\n')
    for file in filter(None, (args.markdown, args.plot)):
        file.parent.mkdir(parents=True, exist_ok=True)
    if args.markdown:
        args.markdown.write_text(table.markdown(), 'utf-8')
    if args.plot:
        draw_bars(rows, args.plot)


if __name__ == '__main__':
    main()
