# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from jinja2 import Environment

from ..version import __version__
from ..visualization import beside, draw_instances
from . import charts
from .evaluate import SIZES, Evaluation, activations, evaluate
from .runs import Run

SHOWN = 4
KINDS = dict(bbox='boxes', segm='masks')


def write_report(runs: Sequence[Run],
                 path: str | Path,
                 device: str | None = None,
                 max_images: int | None = None,
                 score_thr: float = 0.3,
                 predict: bool = True) -> list[str]:
    """Write one HTML page about one or several trainings.

    The page holds everything: it can be sent as it is.

    Args:
        runs (Sequence[Run]): The trainings.
        path (str | Path): Where to write it.
        device (str, optional): Where detectors are run on their validation
            sets. Defaults to None: the GPU if there is one.
        max_images (int, optional): How many images of these at most.
            Defaults to None, all.
        score_thr (float): What counts as found in the confusion matrix and
            the pictures. Defaults to 0.3.
        predict (bool): Whether to run the models. Defaults to True; without,
            the page has what was logged.

    Returns:
        list[str]: What could not be shown, and why.
    """
    evaluations, notes = {}, []
    for run in runs if predict else ():
        reason = _not_evaluated(run)
        if reason is None:
            evaluations[run.name] = evaluate(run, device, max_images,
                                             score_thr)
        else:
            notes.append(f'{run.name}: not run on its validation set, '
                         f'{reason}')
    scored = list(
        dict.fromkeys(name for run in runs for name in run.metrics
                      if name.endswith(('_mAP', '/top1', '/mIoU', '/PQ'))))
    figures = [
        ('Losses', charts.losses(runs)),
        ('Learning rate and gradients', charts.rates(runs)),
    ]
    if scored:
        figures.insert(1, ('Validation', charts.metrics(runs, scored)))
    if evaluations:
        figures += [
            ('Precision and recall', charts.precision_recall(evaluations)),
            ('Average precision of each class',
             charts.per_class(evaluations)),
        ]
    page = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
            Path(__file__).with_name('page.html').read_text('utf-8'))
    text = page.render(
        title=', '.join(run.name for run in runs),
        version=__version__,
        figures=figures,
        tables=_tables(runs, evaluations, scored),
        runs=[_about(run, evaluations.get(run.name)) for run in runs],
        notes=notes)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding='utf-8')
    return notes


def _not_evaluated(run: Run) -> str | None:
    """Why a run's model is not run; None if it is."""
    if run.config.get('default_scope') != 'mmdet':
        return 'it is no detector'
    if run.checkpoint is None or not Path(run.checkpoint).is_file():
        return 'there is no checkpoint'
    loader = run.config.get('val_dataloader')
    if not loader:
        return 'its config has none'
    dataset = loader.dataset
    if not str(dataset.get('type')).endswith('CocoDataset'):
        return f'which is of type {dataset.get("type")!r}, not CocoDataset'
    ann_file = Path(dataset.get('data_root') or '', dataset.ann_file)
    if not ann_file.is_file():
        return f'whose annotations {ann_file} are not there'
    return None


def _tables(runs, evaluations, scored) -> list[tuple]:
    """(title, header, rows) of each table, numbers as text."""
    tables = []
    rows = []
    for run in runs:
        seconds = [e['time'] for e in run.train if 'time' in e]
        rows.append([
            run.name,
            str(run.train[-1]['iter'] if run.train else 0),
            f'{np.mean(seconds):.2f} s' if seconds else '',
            *(_number(run.last(name)) for name in scored)
        ])
    tables.append(('Logged', [
        'run', 'iterations', 'an iteration',
        *(name.split('/')[-1] for name in scored)
    ], rows))
    rows = []
    for name, evaluation in evaluations.items():
        for kind in evaluation.evals:
            rows.append([
                name, KINDS[kind],
                *(_number(evaluation.ap(kind, size)) for size in SIZES[:1]),
                _number(evaluation.ap(kind, iou=0.5)),
                _number(evaluation.ap(kind, iou=0.75)),
                *(_number(evaluation.ap(kind, size)) for size in SIZES[1:])
            ])
    if rows:
        tables.append(
            ('Average precision, IoU 0.50 to 0.95',
             ['run', '', 'all', 'IoU 0.5', 'IoU 0.75', *SIZES[1:]], rows))
    return tables


def _number(value: float | None) -> str:
    return '' if value is None or math.isnan(value) else f'{value:.3f}'


def _about(run: Run, evaluation: Evaluation | None) -> dict:
    about = dict(
        name=run.name,
        config=run.config.pretty_text,
        environment=run.environment,
        parts=run.parts,
        commands=_commands(run))
    if evaluation is not None:
        about['confusion'] = charts.confusion(evaluation)
        worst = evaluation.images[:SHOWN]
        best = [entry for entry in evaluation.images[:-SHOWN - 1:-1]
                if entry not in worst]
        about['pictures'] = [
            (title, [_pair(evaluation, *entry) for entry in entries])
            for title, entries in (('Worst', worst), ('Best', best))
            if entries
        ]
        about['stages'] = _stages(evaluation)
    return about


def _commands(run: Run) -> str:
    name = Path(run.config.filename).name
    seed = run.config.get('randomness', {}).get('seed')
    lines = [
        '# the config below, in a file', f'python tools/train.py {name} '
        f'--work-dir {shlex.quote(str(run.folder))}'
    ]
    if seed is None:
        lines[-1] += ' --cfg-options randomness.seed=0'
        lines.insert(1, '# this run had no seed set: its log names the one '
                     'that it drew')
    if run.checkpoint:
        lines.append(f'python tools/test.py {name} '
                     f'{shlex.quote(str(run.checkpoint))}')
    return '\n'.join(lines)


def _jpeg(picture: np.ndarray) -> str:
    _, data = cv2.imencode('.jpg', picture[..., ::-1],
                           (cv2.IMWRITE_JPEG_QUALITY, 85))
    return 'data:image/jpeg;base64,' + base64.b64encode(data).decode()


def _read(evaluation, image_id) -> np.ndarray:
    info = evaluation.coco.imgs[image_id]
    return cv2.imread(str(evaluation.folder / info['file_name']))[..., ::-1]


def _pair(evaluation, f1, image_id) -> tuple[str, str]:
    image = _read(evaluation, image_id)
    truth, found = (
        evaluation.instances(image_id, truth) for truth in (True, False))
    picture = beside(
        draw_instances(
            image, truth, evaluation.classes, 'truth', min_side=512),
        draw_instances(
            image, found, evaluation.classes, 'found', min_side=512))
    name = evaluation.coco.imgs[image_id]['file_name']
    return _jpeg(picture), (f'{name}: {len(found)} found of {len(truth)}, '
                            f'F1 {f1:.2f}')


def _stages(evaluation) -> list[tuple[str, str]]:
    """What the fish sees, in the image with the most objects."""
    coco = evaluation.coco
    ids = [image_id for _, image_id in evaluation.images]
    if not ids:
        return []
    image_id = max(ids, key=lambda i: len(coco.getAnnIds(i)))
    pictures = [('image', _read(evaluation, image_id))]
    size = pictures[0][1].shape[1::-1]
    for name, response in activations(evaluation, image_id):
        low, high = np.percentile(response, (1, 99))
        scaled = np.clip((response - low) / max(high - low, 1e-12), 0, 1)
        colored = matplotlib.colormaps['magma'](scaled)[..., :3]
        enlarged = cv2.resize((255 * colored).astype(np.uint8), size,
                              interpolation=cv2.INTER_NEAREST)
        pictures.append((f'{name}, {response.shape[0]}x{response.shape[1]}',
                         enlarged))
    return [(_jpeg(picture), caption) for caption, picture in pictures]
