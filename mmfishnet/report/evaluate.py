# Copyright (c) mmfishnet authors. All rights reserved.
"""How a detector does on its validation set, object by object."""
from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmdet.evaluation import bbox_overlaps
from mmengine.structures import InstanceData
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.progress import track

from ..apis import Predictor
from ..apis.files import coco_results

SIZES = ('all', 'small', 'medium', 'large')


@dataclass
class Evaluation:
    """A detector's results on a validation set.

    Attributes:
        coco (COCO): The truth.
        classes (tuple[str]): Names of the classes.
        evals (dict[str, COCOeval]): pycocotools' results for ``bbox`` and,
            if there are masks, ``segm``.
        confusion (np.ndarray): Counts, (n + 1, n + 1): true class in rows,
            predicted class in columns, the background last.
        images (list[tuple[float, int]]): F1 score and image id, the worst
            first; of images with objects.
        folder (Path): Where the pictures are.
    """
    coco: COCO
    classes: tuple[str, ...]
    evals: dict[str, COCOeval]
    confusion: np.ndarray
    images: list[tuple[float, int]]
    folder: Path
    results: COCO
    model: Predictor
    score_thr: float

    def ap(self, kind: str, size: str = 'all', label: int | None = None,
           iou: float | None = None) -> float:
        """Average precision, nan where there are no objects.

        Args:
            kind (str): 'bbox' or 'segm'.
            size (str): 'all', 'small', 'medium' or 'large'. Defaults to
                'all'.
            label (int, optional): One class alone. Defaults to None.
            iou (float, optional): One IoU threshold, 0.5 or 0.75, alone.
                Defaults to None: the mean of 0.5 to 0.95.

        Returns:
            float: The average precision.
        """
        precision = self.evals[kind].eval['precision']
        if iou is not None:
            thresholds = self.evals[kind].params.iouThrs
            precision = precision[np.isclose(thresholds, iou)]
        if label is not None:
            precision = precision[:, :, label:label + 1]
        precision = precision[:, :, :, SIZES.index(size), -1]
        precision = precision[precision > -1]
        return float(precision.mean()) if precision.size else float('nan')

    def curve(self, kind: str, iou: float) -> tuple[np.ndarray, np.ndarray]:
        """Recall and precision at an IoU, the mean of the classes."""
        evaluated = self.evals[kind]
        i = int(np.flatnonzero(np.isclose(evaluated.params.iouThrs, iou))[0])
        precision = evaluated.eval['precision'][i, :, :, 0, -1]
        present = (precision > -1).all(axis=0)
        return evaluated.params.recThrs, precision[:, present].mean(axis=1)

    def instances(self, image_id: int, truth: bool) -> InstanceData:
        """The objects of an image: true, or found with a sufficient score."""
        source = self.coco if truth else self.results
        anns = source.loadAnns(source.getAnnIds(image_id))
        if truth:
            anns = [ann for ann in anns if not ann.get('iscrowd')]
        else:
            anns = [ann for ann in anns if ann['score'] >= self.score_thr]
        labels = {c: i for i, c in enumerate(self.evals['bbox'].params.catIds)}
        anns = [ann for ann in anns if ann['category_id'] in labels]
        boxes = np.array([ann['bbox'] for ann in anns],
                         float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found = InstanceData(
            bboxes=boxes,
            labels=np.array([labels[ann['category_id']] for ann in anns],
                            int))
        if not truth:
            found.scores = np.array([ann['score'] for ann in anns], float)
        if 'segm' in self.evals:
            info = self.coco.imgs[image_id]
            found.masks = np.array([source.annToMask(ann) for ann in anns],
                                   bool).reshape(-1, info['height'],
                                                 info['width'])
        return found


def evaluate(run,
             device: str | None = None,
             max_images: int | None = None,
             score_thr: float = 0.3,
             progress: bool = True) -> Evaluation:
    """Predict on a run's validation set and compare with the truth.

    Args:
        run (Run): A training of a detector on a data set in COCO's format.
        device (str, optional): Where to predict. Defaults to None: the GPU
            if there is one.
        max_images (int, optional): How many images at most. Defaults to
            None, all of them.
        score_thr (float): What counts as found in the confusion matrix and
            the pictures. Defaults to 0.3.
        progress (bool): Whether to show a progress bar. Defaults to True.

    Returns:
        Evaluation: The results.

    Raises:
        ValueError: If the validation set is of another kind.
    """
    dataset = run.config.val_dataloader.dataset
    if not str(dataset.get('type')).endswith('CocoDataset'):
        raise ValueError(f'the validation set is of type {dataset.type!r}; '
                         'only CocoDataset is evaluated in the report.')
    root = Path(dataset.get('data_root') or '')
    ann_file = root / dataset.ann_file
    folder = root / dataset.data_prefix.get('img', '')
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(ann_file))
    model = Predictor(run.checkpoint, run.config, device)
    by_name = {cat['name']: i for i, cat in coco.cats.items()}
    categories = [by_name[name] for name in model.classes]

    ids = sorted(coco.imgs)[:max_images]
    paths = [str(folder / coco.imgs[i]['file_name']) for i in ids]
    predictions = model(paths)
    if progress:
        predictions = track(predictions, f'Evaluate {run.name}', len(ids))
    results = []
    # In this order: the progress bar ends with what it counts.
    for prediction, image_id in zip(predictions, ids):
        results += coco_results(prediction, image_id, categories)
    if model.skipped:
        name, reason = model.skipped[0]
        raise ValueError(f'{len(model.skipped)} pictures of {folder} could '
                         f'not be read; {name}: {reason}')
    kinds = ['bbox']
    if any('segmentation' in result for result in results):
        kinds.append('segm')
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = coco.loadRes(results) if results else COCO()
        evals = {}
        for kind in kinds:
            evals[kind] = COCOeval(coco, loaded, kind)
            evals[kind].params.imgIds = ids
            evals[kind].params.catIds = categories
            evals[kind].evaluate()
            evals[kind].accumulate()
    evaluation = Evaluation(coco, model.classes, evals, np.zeros(
        (len(categories) + 1, ) * 2, int), [], folder, loaded, model,
                            score_thr)
    for image_id in ids:
        truth = evaluation.instances(image_id, True)
        found = evaluation.instances(image_id, False)
        matrix = match(truth, found, len(categories))
        evaluation.confusion += matrix
        if len(truth):
            right = np.trace(matrix[:-1, :-1])
            f1 = 2 * right / (len(truth) + len(found))
            evaluation.images.append((f1, image_id))
    evaluation.images.sort()
    return evaluation


def match(truth: InstanceData,
          found: InstanceData,
          num_classes: int,
          iou_thr: float = 0.5) -> np.ndarray:
    """Pair objects one to one by their boxes, whatever their classes.

    The pairs are made from the highest IoU down, those of one class first.
    (MMDetection's ``confusion_matrix.py`` lets one detection stand for
    several objects, which counts too much where they are crowded.)

    Args:
        truth (InstanceData): True ``bboxes`` and ``labels``.
        found (InstanceData): Predicted ones.
        num_classes (int): Number of classes.
        iou_thr (float): Least IoU of a pair. Defaults to 0.5.

    Returns:
        np.ndarray: Counts, (num_classes + 1, num_classes + 1): true class in
        rows, predicted class in columns, the background last.
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
    for i in free_truth:
        matrix[truth.labels[i], -1] += 1
    for j in free_found:
        matrix[-1, found.labels[j]] += 1
    return matrix


def activations(evaluation: Evaluation,
                image_id: int) -> Sequence[tuple[str, np.ndarray]]:
    """How strongly the backbone's stages answer to an image.

    Args:
        evaluation (Evaluation): Of the detector.
        image_id (int): The image.

    Returns:
        list[tuple[str, np.ndarray]]: Name of each stage, in the order in
        which they run, and the root mean square of its refined feature's
        channels, (H, W). Empty for backbones without such stages.
    """
    backbone = evaluation.model.backbone
    names = [
        name for name in getattr(backbone, 'stage_names', ())
        if hasattr(getattr(backbone, name), 'refine')
    ]
    seen = {}
    handles = [
        getattr(backbone, name).refine.register_forward_hook(
            lambda module, args, output, name=name: seen.update(
                {name: output[0].float().pow(2).mean(0).sqrt().cpu().numpy()}))
        for name in names
    ]
    try:
        info = evaluation.coco.imgs[image_id]
        list(evaluation.model(str(evaluation.folder / info['file_name'])))
    finally:
        for handle in handles:
            handle.remove()
    return [(name, seen[name]) for name in names if name in seen]
