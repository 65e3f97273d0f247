# Copyright (c) mmfishnet authors. All rights reserved.
"""One page about one or several trainings."""
from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from jinja2 import Environment

from ..apis.inputs import to_rgb
from ..version import __version__
from ..visualization import beside, draw_instances, draw_pixels, draw_scores
from ..whole_file import whole_file
from ..work_dir import Run
from . import charts
from .evaluate import KEPT, Evaluation, activations, evaluate

SIDE = 512
OBJECTS = ('Objects paired one to one by their boxes at IoU 0.5. The last '
           'column is what was missed, the last row what was found where '
           'nothing is.')


def write_report(runs: Sequence[Run],
                 path: str | Path,
                 device: str | None = None,
                 max_images: int | None = None,
                 score_thr: float = 0.3,
                 predict: bool = True) -> list[str]:
    """Write one HTML page about one or several trainings.

    The page holds everything: it can be sent as it is.

    Args:
        runs (Sequence[Run]): The trainings, of different names.
        path (str | Path): Where to write it.
        device (str, optional): Where models are run on their validation
            sets. Defaults to None: the GPU if there is one.
        max_images (int, optional): How many images of these at most.
            Defaults to None, all.
        score_thr (float): What counts as found in the confusion matrix and
            the pictures. Defaults to 0.3.
        predict (bool): Whether to run the models. Defaults to True; without,
            the page has what was logged.

    Returns:
        list[str]: What could not be shown, and why.

    Raises:
        FileNotFoundError: If a run has no log of its training.
    """
    evaluations, notes = {}, []
    for run in runs:
        if not run.train and not run.val:
            raise FileNotFoundError(
                f'{run.folder} is not the work directory of a training: there '
                'is no TIME/vis_data/scalars.json in it.')
        try:
            if predict:
                evaluations[run.name] = evaluate(run, device, max_images,
                                                 score_thr)
        except Exception as error:  # of a model, its data and their code
            notes.append(f'{run.name}: not run on its validation set; '
                         f'{type(error).__name__}: {error}')
    found = evaluations.values()
    figures = [(title, charts.svg(draw, what)) for title, draw, what in (
        ('Losses', charts.losses, runs),
        ('Validation', charts.metrics, charts.main_metrics(runs) and runs),
        ('Learning rate and gradients', charts.rates, runs),
        ('Precision and recall', charts.precision_recall,
         any(e.curves for e in found) and evaluations),
        ('Average precision of each class', charts.per_class,
         any(e.per_class for e in found) and evaluations)) if what]
    page = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
            Path(__file__).with_name('page.html').read_text('utf-8'))
    text = page.render(
        title=', '.join(run.name for run in runs),
        version=__version__,
        figures=figures,
        tables=_tables(runs, evaluations),
        runs=[_about(run, evaluations.get(run.name)) for run in runs],
        notes=notes)
    with whole_file(path) as part:
        Path(part).write_text(text, encoding='utf-8')
    return notes


def _tables(runs, evaluations) -> list[tuple]:
    """(title, header, rows) of each table, numbers as text."""
    def rows(metrics):
        names = dict.fromkeys(n for values in metrics for n in values)
        return [[name, *(number(values.get(name)) for values in metrics)]
                for name in names]

    def number(value):  # COCO's -1: there is no such object
        return '' if value in (None, -1) else f'{value:.3f}'

    seconds = [[e['time'] for e in run.train if 'time' in e] for run in runs]
    logged = [
        ['iterations', *(run.train[-1]['iter'] if run.train else 0
                         for run in runs)],
        ['an iteration', *(f'{np.mean(s):.2f} s' if s else ''
                           for s in seconds)],
        *rows([run.metrics for run in runs])]
    tables = [('Logged', ['', *(run.name for run in runs)], logged)]
    if evaluations:
        tables.append(('Last checkpoint on its validation set',
                       ['', *evaluations],
                       rows([e.metrics for e in evaluations.values()])))
    return tables


def _about(run: Run, evaluation: Evaluation | None) -> dict:
    """What the page has below a run's name."""
    about = dict(name=run.name, config=run.config.pretty_text,
                 environment=run.environment, parts=run.parts,
                 commands=_commands(run))
    if evaluation is None or evaluation.confusion is None:
        return about
    matrix, classes = evaluation.confusion, evaluation.model.classes
    worst, best = evaluation.seen[:KEPT], evaluation.seen[KEPT:][::-1]
    return about | dict(
        confusion=charts.svg(charts.confusion, matrix, classes),
        words=OBJECTS if len(matrix) > len(classes) else (
            'True classes in rows.'),
        pictures=[(title, [_pair(evaluation, seen) for seen in entries])
                  for title, entries in (('Worst', worst), ('Best', best))
                  if entries],
        stages=_stages(evaluation))


def _commands(run: Run) -> str:
    name = Path(run.config.filename).name
    seed = (run.config.get('randomness') or {}).get('seed')
    lines = ['# the config below, in a file', f'python tools/train.py {name} '
             f'--work-dir {shlex.quote(str(run.folder))}']
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


def _read(evaluation, path) -> np.ndarray:
    return to_rgb(evaluation.model.read(path)['img'])


def _pair(evaluation, seen) -> tuple[str, str]:
    """A picture with the truth and what was found, and words on it."""
    image, classes = _read(evaluation, seen.path), evaluation.model.classes
    # With its folder: there may be one of this name in each.
    name = '/'.join(Path(seen.path).parts[-2:])
    if isinstance(seen.truth, int):
        drawn = draw_scores(image, seen.found, classes, min_side=SIDE)
        return _jpeg(drawn), (f'{name}: truth: {classes[seen.truth]}, its '
                              f'score {seen.score:.0%}')
    if isinstance(seen.truth, np.ndarray):
        draw, words = draw_pixels, f'{seen.score:.1%} of its pixels are right'
    else:
        draw = draw_instances
        words = (f'{len(seen.found)} found, {len(seen.truth)} there, '
                 f'F1 {seen.score:.2f}')
    return _jpeg(beside(*(
        draw(image, what, classes, title, min_side=SIDE)
        for what, title in ((seen.truth, 'truth'), (seen.found, 'found'))
    ))), f'{name}: {words}'


def _stages(evaluation) -> list[tuple[str, str]]:
    """What the fish sees, in the image with the most objects."""
    if not evaluation.seen:
        return []
    path = max(evaluation.seen, key=lambda seen: np.size(
        getattr(seen.truth, 'labels', 0))).path
    image = _read(evaluation, path)
    pictures = [(_jpeg(image), 'image')]
    for name, response in activations(evaluation.model, path):
        low, high = np.percentile(response, (1, 99))
        scaled = np.clip((response - low) / max(high - low, 1e-12), 0, 1)
        colored = matplotlib.colormaps['magma'](scaled)[..., :3]
        enlarged = cv2.resize((255 * colored).astype(np.uint8),
                              image.shape[1::-1],
                              interpolation=cv2.INTER_NEAREST)
        pictures.append((_jpeg(enlarged),
                         f'{name}, {response.shape[0]}x{response.shape[1]}'))
    # Of other backbones there is nothing to see.
    return pictures if len(pictures) > 1 else []
