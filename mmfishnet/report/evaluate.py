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
from mmengine.registry import DATASETS, EVALUATOR
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from rich.progress import track
from torch.utils.data import Subset

from ..apis.inputs import Picture, to_rgb
from ..apis.predict import Prediction, Predictor, content_of
from ..kinds import dicts_in

KINDS = dict(bbox='boxes', segm='masks')
KEPT = 20  # pictures, of the worst and of the best


@dataclass
class Seen:
    """A picture of the validation set.

    Attributes:
        score (float): How well the model did: F1 of a detector's objects,
            score of a classifier's true class, share of a segmenter's pixels.
        path (str): The picture.
        truth (InstanceData | int | np.ndarray): Objects, class, or class of
            each pixel.
    """
    score: float
    path: str
    truth: object


@dataclass
class Evaluation:
    """A model's results on a validation set.

    Attributes:
        metrics (dict[str, float]): What the run's own evaluator says.
        per_class (dict[str, float]): AP of each class, of a detector on COCO.
        curves (dict[str, dict[float, np.ndarray]]): Recall and precision,
            (2, 101), the mean of the classes, by kind and IoU.
        confusion (np.ndarray, optional): Counts: true class in rows,
            predicted class in columns; of a detector the background last.
        seen (list[Seen]): The worst pictures and the best, in this order.
        model (Predictor): The model.
        score_thr (float): What counts as found.
    """
    model: Predictor
    score_thr: float
    metrics: dict[str, float] = field(default_factory=dict)
    per_class: dict[str, float] = field(default_factory=dict)
    curves: dict[str, dict] = field(default_factory=dict)
    confusion: np.ndarray | None = None
    seen: list[Seen] = field(default_factory=list)

    def predict(self, path: str) -> Prediction:
        """Predict on one of the pictures again."""
        data = self.model.read(path)
        picture = Picture(path, path, to_rgb(data['img']))
        return Prediction(picture, *self.model.run([data])[0])

    def found(self, instances: InstanceData) -> InstanceData:
        """The objects of a sufficient score."""
        return instances[instances.scores >= self.score_thr]


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
        ids = _run(result, dataset, loader, evaluator, f'Evaluate {run.name}')
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


def _run(result, dataset, loader, evaluator, title) -> list:
    """Predict and compare; the images' ids."""
    batches, ids = iter(loader), []
    for _ in track(range(len(loader)), title, console=Console(stderr=True)):
        batch = next(batches)  # in this order: the bar reaches its end
        with torch.no_grad():
            samples = result.model.model.test_step(batch)
        for sample in samples:
            _compare(result, sample, dataset, len(ids))
            ids.append(sample.get('img_id', len(ids)))
        result.seen.sort(key=lambda seen: seen.score)
        del result.seen[KEPT:-KEPT]
        evaluator.process(data_samples=samples, data_batch=batch)
    return ids


def _compare(result, sample, dataset, index) -> None:
    """Note what a model says of a picture, beside the truth."""
    instances, scores, pixels = content_of(sample)
    classes = len(result.model.classes)
    if instances is not None:
        if not hasattr(dataset, 'get_data_info'):
            return
        truth = _true_instances(dataset.get_data_info(index))
        found = result.found(instances)
        counts = match(truth, found, classes)
        right = np.trace(counts[:-1, :-1])
        score = 2 * right / max(1, len(truth) + len(found))
        if not len(truth):  # neither good nor bad
            score = None
    elif scores is not None:
        truth = sample.gt_label.cpu().numpy()
        if len(truth) != 1:  # of several classes
            return
        truth, score = int(truth[0]), float(scores[truth[0]])
        counts = (truth, int(scores.argmax()))
    else:
        truth = sample.gt_sem_seg.data[0].cpu().numpy().astype(int)
        known = (truth >= 0) & (truth < classes) & (pixels < classes)
        counts = np.bincount(truth[known] * classes + pixels[known],
                             minlength=classes**2).reshape(classes, classes)
        score = np.trace(counts) / max(1, counts.sum())
        truth = truth.astype(np.int16)
    if result.confusion is None:
        result.confusion = np.zeros(
            [classes + (instances is not None)] * 2, int)
    if isinstance(counts, tuple):  # of the thousand classes of ImageNet one
        result.confusion[counts] += 1
    else:
        result.confusion += counts
    path = sample.get('img_path')
    if score is not None and isinstance(path, str):
        result.seen.append(Seen(score, path, truth))


def _true_instances(info: dict) -> InstanceData:
    """What a data set of MMDetection says of a picture."""
    kept = [item for item in info.get('instances', ())
            if not item.get('ignore_flag')]
    truth = InstanceData(
        bboxes=np.array([item['bbox'] for item in kept],
                        float).reshape(-1, 4),
        labels=np.array([item['bbox_label'] for item in kept], int))
    masks = [item.get('mask') for item in kept]
    if masks and all(masks):
        for i, mask in enumerate(masks):
            if isinstance(mask, list) or isinstance(mask['counts'], list):
                masks[i] = mask = coco_mask.frPyObjects(
                    mask, info['height'], info['width'])
            if isinstance(mask, list):  # of polygons
                masks[i] = coco_mask.merge(mask)
        truth.masks = masks
    return truth


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
    for item in found if kind == 'segm' else ():
        item.pop('bbox')  # its area would be taken for the mask's
    if not found:
        return {}
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


def activations(evaluation: Evaluation,
                path: str) -> list[tuple[str, np.ndarray]]:
    """How strongly the backbone's stages answer to an image: name of each,
    in the order in which they run, and the root mean square of its refined
    feature's channels, (H, W). Empty for backbones without such stages."""
    backbone = getattr(evaluation.model.model, 'backbone', None)
    names = [name for name in getattr(backbone, 'stage_names', ())
             if hasattr(getattr(backbone, name), 'refine')]
    seen = {}

    def watch(name):
        def keep(module, args, output):
            rms = output[0].float().pow(2).mean(0).sqrt()
            seen[name] = rms.cpu().numpy()
        return getattr(backbone, name).refine.register_forward_hook(keep)

    handles = [watch(name) for name in names]
    try:
        if names:
            evaluation.predict(path)
    finally:
        for handle in handles:
            handle.remove()
    return [(name, seen[name]) for name in names if name in seen]
