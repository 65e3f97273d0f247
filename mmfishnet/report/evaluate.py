# Copyright (c) mmfishnet authors. All rights reserved.
"""How a model does on its validation set, picture by picture."""
from __future__ import annotations

import contextlib
import io
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from mmdet.evaluation import bbox_overlaps
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, EVALUATOR, TRANSFORMS
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.utils.data import Subset

from ..apis.predict import Predictor, as_arrays, content_of
from ..kinds import dicts_in

KINDS = dict(bbox='boxes', segm='masks')
KEPT = 4  # pictures, of the worst and of the best


@dataclass
class Seen:
    """A picture of the validation set.

    Attributes:
        score (float): How well the model did: F1 of a detector's objects,
            score of a classifier's true class, share of a segmenter's pixels.
        path (str): The picture.
        truth (InstanceData | int | np.ndarray): Objects, class, or class of
            each pixel.
        found (InstanceData | np.ndarray): Objects of a sufficient score,
            scores of the classes, or class of each pixel.
    """
    score: float
    path: str
    truth: object
    found: object


@dataclass
class Evaluation:
    """A model's results on a validation set.

    Attributes:
        model (Predictor): The model.
        score_thr (float): What counts as found.
        metrics (dict[str, float]): What the run's own evaluator says.
        per_class (dict[str, float]): AP of each class, of a detector on COCO.
        curves (dict[str, dict[float, np.ndarray]]): Recall and precision,
            (2, 101), the mean of the classes, by kind and IoU.
        confusion (np.ndarray, optional): Counts: true class in rows,
            predicted class in columns; of a detector the background last.
        seen (list[Seen]): The worst pictures and the best, in this order.
    """
    model: Predictor
    score_thr: float
    metrics: dict[str, float] = field(default_factory=dict)
    per_class: dict[str, float] = field(default_factory=dict)
    curves: dict[str, dict] = field(default_factory=dict)
    confusion: np.ndarray | None = None
    seen: list[Seen] = field(default_factory=list)

    def add(self, sample, info: dict) -> None:
        """Note what the model says in a data sample, beside the truth.

        Args:
            sample: As the model gave it.
            info (dict): What the data set says of the picture.
        """
        instances, scores, pixels = content_of(sample)
        classes = len(self.model.classes)
        if instances is not None:
            if 'instances' not in info:
                return
            truth = _objects(info, sample.ori_shape)
            found = instances[instances.scores >= self.score_thr]
            counts = match(truth, found, classes)
            right = np.trace(counts[:-1, :-1])
            score = 2 * right / max(1, len(truth) + len(found))
            if not len(truth):  # neither good nor bad
                score = None
        elif scores is not None:
            truth, found = sample.gt_label.cpu().numpy(), scores
            if len(truth) != 1:  # of several classes
                return
            truth, score = int(truth[0]), float(scores[truth[0]])
            counts = (truth, int(scores.argmax()))
        else:
            truth = sample.gt_sem_seg.data[0].cpu().numpy().astype(int)
            known = (truth >= 0) & (truth < classes) & (pixels < classes)
            counts = np.bincount(truth[known] * classes + pixels[known],
                                 minlength=classes**2).reshape(classes, -1)
            score = np.trace(counts) / max(1, counts.sum())
            found = pixels
        if self.confusion is None:
            self.confusion = np.zeros(
                [classes + (instances is not None)] * 2, int)
        if isinstance(counts, tuple):  # of the thousand of ImageNet one
            self.confusion[counts] += 1
        else:
            self.confusion += counts
        path = sample.get('img_path')
        if score is not None and isinstance(path, str):
            self.seen.append(Seen(score, path, truth, found))
            self.seen.sort(key=lambda seen: seen.score)
            del self.seen[KEPT:-KEPT]


def evaluate(run,
             device: str | None = None,
             max_images: int | None = None,
             score_thr: float = 0.3) -> Evaluation:
    """Predict on a run's validation set and compare with the truth.

    Loader and evaluator are those of the run's own validation.

    Arguments are those of :func:`mmfishnet.report.write_report`, for a
    single run.

    Returns:
        Evaluation: The results.

    Raises:
        ValueError: If the run has no checkpoint or no validation.
    """
    if run.checkpoint is None:
        raise ValueError('there is no checkpoint')
    if not run.config.get('val_dataloader') or not run.config.get(
            'val_evaluator'):
        raise ValueError('its config has no validation')
    result = Evaluation(Predictor(run.checkpoint, run.config, device),
                        score_thr)
    MMLogger.get_current_instance().setLevel('WARNING')  # tables are the page
    with (tempfile.TemporaryDirectory() as folder,
          contextlib.redirect_stdout(io.StringIO())):  # pycocotools'
        dataset, loader, evaluator = _build(result.model.cfg, max_images)
        coco = [m for m in evaluator.metrics if m.default_prefix == 'coco'
                and hasattr(m, 'outfile_prefix')]
        for metric in coco:
            metric.classwise, metric.outfile_prefix = True, f'{folder}/coco'
        get_info = getattr(dataset, 'get_data_info', lambda index: {})
        ids = []
        for batch in track(loader, f'Evaluate {run.name}', len(loader),
                           console=Console(stderr=True)):
            with torch.no_grad():
                samples = result.model.model.test_step(batch)
            for sample in samples:
                result.add(sample, get_info(len(ids)))
                ids.append(sample.get('img_id', len(ids)))
            evaluator.process(data_samples=samples, data_batch=batch)
        for metric in coco if len(ids) < len(dataset) else ():
            metric.img_ids = ids
        metrics = evaluator.evaluate(len(ids))
        for metric in coco:
            truth = _ann_file(result.model.cfg.val_evaluator, dataset, folder)
            for kind in set(metric.metrics) & set(KINDS):
                result.curves[kind] = _curves(
                    f'{folder}/coco.{kind}.json', truth, kind, metric)
    for key, value in metrics.items():
        name = key.removesuffix('_precision').rpartition('/')[2]
        if key.endswith('_precision') and name in result.model.classes:
            result.per_class[name] = value
        else:
            result.metrics[key] = value
    return result


def _build(cfg, max_images) -> tuple:
    """Data set, loader of its first images in their order, and evaluator."""
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    kept = range(min(len(dataset), max_images or len(dataset)))
    loader = Runner.build_dataloader(dict(
        cfg.val_dataloader, dataset=Subset(dataset, kept),
        sampler=dict(type='DefaultSampler', shuffle=False)))
    evaluator = cfg.val_evaluator
    evaluator = (EVALUATOR.build(evaluator) if 'metrics' in evaluator
                 else Evaluator(evaluator))
    evaluator.dataset_meta = dataset.metainfo
    return dataset, loader, evaluator


def _objects(info: dict, shape: tuple[int, int]) -> InstanceData:
    """A picture's objects as the data set has them, whatever the validation's
    pipeline loads or resizes."""
    loaded = TRANSFORMS.build(dict(
        type='mmdet.LoadAnnotations',
        with_mask=all('mask' in item for item in info['instances'])))(
            dict(info, ori_shape=shape))
    truth = InstanceData(bboxes=loaded['gt_bboxes'],
                         labels=loaded['gt_bboxes_labels'])
    if 'gt_masks' in loaded:
        truth.masks = loaded['gt_masks']
    return as_arrays(truth)[~loaded['gt_ignore_flags']]


def _ann_file(evaluators, dataset, folder) -> str:
    """The truth that an evaluator of COCO's compares with."""
    made = Path(folder, 'coco.gt.json')  # where it is given none
    given = [part['ann_file'] for part in dicts_in(evaluators)
             if part.get('ann_file')]
    return str(made) if made.exists() else (
        given[0] if given else dataset.ann_file)


def _curves(results, ann_file, kind, metric) -> dict[float, np.ndarray]:
    """Recall and precision at IoU 0.5 and 0.75 of what a metric compared."""
    coco, found = COCO(ann_file), json.loads(Path(results).read_text())
    if not found:
        return {}
    for item in found if kind == 'segm' else ():
        item.pop('bbox')  # its area would be taken for the mask's
    compared = COCOeval(coco, coco.loadRes(found), kind)
    compared.params.imgIds = metric.img_ids
    compared.params.catIds = metric.cat_ids
    compared.params.iouThrs = np.array([0.5, 0.75])
    compared.params.areaRng, compared.params.areaRngLbl = [[0, 1e10]], ['all']
    compared.evaluate()
    compared.accumulate()
    curves = {}
    for iou, precision in zip((0.5, 0.75), compared.eval['precision']):
        precision = precision[:, :, 0, -1]
        precision = precision[:, (precision > -1).all(axis=0)]
        if precision.size:
            curves[iou] = np.array([compared.params.recThrs,
                                    precision.mean(axis=1)])
    return curves


def match(truth: InstanceData,
          found: InstanceData,
          num_classes: int,
          iou_thr: float = 0.5) -> np.ndarray:
    """Pair objects one to one by their boxes, whatever their classes.

    The pairs are made from the highest IoU down, those of one class first.
    (MMDetection's ``confusion_matrix.py`` lets one detection stand for
    several objects, which counts too much where they are crowded.)

    Returns:
        np.ndarray: Counts; true class in rows, predicted class in columns,
        the background last.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), int)
    ious = bbox_overlaps(
        np.asarray(truth.bboxes, np.float32),
        np.asarray(found.bboxes, np.float32)).reshape(len(truth), len(found))
    same = np.equal.outer(truth.labels, found.labels)
    pairs = np.argwhere(ious >= iou_thr)
    order = np.lexsort((-ious[tuple(pairs.T)], ~same[tuple(pairs.T)]))
    free_truth, free_found = set(range(len(truth))), set(range(len(found)))
    for i, j in pairs[order]:
        if i in free_truth and j in free_found:
            matrix[truth.labels[i], found.labels[j]] += 1
            free_truth.remove(i)
            free_found.remove(j)
    np.add.at(matrix, (truth.labels[list(free_truth)], -1), 1)
    np.add.at(matrix, (-1, found.labels[list(free_found)]), 1)
    return matrix


def activations(model: Predictor,
                path: str) -> list[tuple[str, np.ndarray]]:
    """How strongly the backbone's stages answer to an image: name of each,
    in the order in which they run, and the root mean square of its refined
    feature's channels, (H, W). Empty for backbones without such stages."""
    found, handles = [], []
    backbone = getattr(model.model, 'backbone', nn.Identity())
    for name, stage in backbone.named_children():
        def keep(module, args, output, name=name):
            rms = output[0].float().pow(2).mean(0).sqrt()
            found.append((name, rms.cpu().numpy()))
        if hasattr(stage, 'refine'):
            handles.append(stage.refine.register_forward_hook(keep))
    try:
        model.run([model.read(path)])
    finally:
        for handle in handles:
            handle.remove()
    return found
