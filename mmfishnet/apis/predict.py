# Copyright (c) mmfishnet authors. All rights reserved.
"""Predict on pictures, folders, videos and URLs.

Models of MMDetection, MMPretrain, MMSegmentation and of whatever is built
over them are run by what MMEngine gives all of them: the pipeline of their
test data and ``test_step``.
"""
from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import (
    DATASETS,
    MODELS,
    TRANSFORMS,
    init_default_scope,
)
from mmengine.structures import InstanceData
from mmengine.utils import import_modules_from_strings
from rich.progress import Progress

from ..checkpoints.loading import load_from_local
from ..kinds import dicts_in, find_class, is_a, scope_of
from ..models.pretrained_module import check_fit
from ..picture_file import doubts
from ..visualization.instances import to_numpy
from ..work_dir import config_in
from .inputs import (
    Picture,
    as_loaded,
    count_pictures,
    find_inputs,
    load_inputs,
    to_rgb,
)
from .tiles import FOR_DETECTORS, predict_tiles
from .writer import Writer


@dataclass
class Prediction:
    """What a model says of a picture.

    Attributes:
        picture (Picture): Name and pixels.
        instances (InstanceData, optional): A detector's ``bboxes`` (n, 4),
            ``labels``, ``scores`` and ``masks`` (n, H, W) if it has masks,
            all as arrays, the best ones first. Of tiles, masks are a list of
            COCO's RLE.
        scores (np.ndarray, optional): A classifier's score of each class.
        pixels (np.ndarray, optional): A segmenter's class of each pixel,
            (H, W).
    """
    picture: Picture
    instances: InstanceData | None = None
    scores: np.ndarray | None = None
    pixels: np.ndarray | None = None


class Predictor:
    """A trained model, ready to predict.

    Args:
        checkpoint (str): File that the training wrote.
        config (str | Config, optional): Config file or config. Defaults to
            None: the one that the checkpoint carries.
        device (str, optional): Such as 'cpu' or 'cuda:0'. Defaults to None:
            the GPU if there is one.

    Attributes:
        model (nn.Module): The model.
        cfg (Config): Its config.
        classes (tuple[str]): Names of the classes.
        detects (bool): False for classifiers and segmenters.
        skipped (list[tuple[str, str]]): What could not be read, and why.
        notes (list[tuple[str, str]]): What was read in part.

    Raises:
        FileNotFoundError: If the checkpoint is not there.
        CheckpointError: If it is damaged, or any part of the model would
            keep its initial weights.
        ValueError: If no config is given and the checkpoint carries none, or
            if neither names the classes.

    Example:
        >>> model = Predictor('work_dirs/mine/epoch_12.pth')
        >>> for prediction in model('my_pictures/', batch_size=4):
        ...     print(prediction.picture.name, len(prediction.instances))
    """

    def __init__(self,
                 checkpoint: str,
                 config: str | Config | None = None,
                 device: str | None = None) -> None:
        held = load_from_local(checkpoint)
        if config is None:
            config = config_in(
                held, f'no config is given (--config FILE), and {checkpoint}')
        cfg = copy.deepcopy(config) if isinstance(
            config, Config) else Config.fromfile(config)
        if cfg.get('custom_imports'):
            import_modules_from_strings(**cfg.custom_imports)
        scope = scope_of(cfg)
        if scope is not None:
            init_default_scope(scope)
        self.cfg, self.skipped, self.notes = cfg, [], []
        self.classes = _classes(cfg, held, checkpoint, scope)
        self.detects = not any(
            is_a(cfg.model, name, MODELS, scope)
            for name in ('BaseClassifier', 'BaseSegmentor'))
        self._load, self._transform = _pipeline(cfg, scope)

        if cfg.get('data_preprocessor'):
            cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        check_fit(model, held, checkpoint, heads=True)
        self.model = model.to(device or get_device()).eval()

    def __call__(self,
                 inputs: str | np.ndarray | Sequence,
                 batch_size: int = 1,
                 tile: int | None = None) -> Iterator[Prediction]:
        """Predict, picture by picture.

        Args:
            inputs (str | Path | np.ndarray | Sequence): Picture, folder (at
                any depth), video, URL, array (BGR, uint8), or several.
            batch_size (int): Pictures, or tiles, that go through the model
                at a time. Defaults to 1.
            tile (int, optional): Side of the tiles into which a detector's
                larger pictures are cut, in pixels. Defaults to None: whole
                pictures.

        Returns:
            Iterator[Prediction]: One a picture, in the order of the inputs.
            What could not be read is left out and stands in ``self.skipped``
            afterwards, as (name, reason).

        Raises:
            FileNotFoundError: If an input is not there.
            ValueError: If an argument is not allowed.
        """
        if batch_size < 1:
            raise ValueError(f'batch_size={batch_size} should be at least 1.')
        if tile is not None and tile < 16:
            raise ValueError(f'tile={tile} should be at least 16 pixels.')
        if tile is not None and not self.detects:
            raise ValueError(FOR_DETECTORS)
        self.skipped, self.notes = [], []
        return self._predict(find_inputs(inputs), batch_size, tile)

    def _predict(self, found, batch_size, tile) -> Iterator[Prediction]:
        loaded = self._loaded(found)
        if tile is not None:
            for picture, data in loaded:
                yield Prediction(picture, predict_tiles(
                    self.run, data, tile, batch_size))
            return
        while batch := list(islice(loaded, batch_size)):
            pictures, data = zip(*batch)
            for picture, content in zip(pictures, self.run(data)):
                yield Prediction(picture, *content)

    def _loaded(self, found) -> Iterator[tuple[Picture, dict]]:
        for picture in load_inputs(found, self.skipped, self.notes):
            try:
                data = self.read(picture.source)
                words = isinstance(picture.source, str) and doubts(
                    picture.source, data and data['img'])
            except Exception as error:  # of file system, network or decoder
                words = str(error) or type(error).__name__
                self.skipped.append((picture.name, words.splitlines()[0]))
                continue
            if words:
                self.notes.append((picture.name, words))
            picture.image = to_rgb(data['img'])
            yield picture, data

    def read(self, source: str | np.ndarray) -> dict | None:
        """Read a picture as the pipeline of the test data does.

        From a path, a URL or BGR, uint8, comes ``img`` with its shapes; None
        if it is no picture.
        """
        if isinstance(source, str):
            try:
                return self._load(dict(img_path=source, img_id=0))
            except (AssertionError, cv2.error):  # mmcv's: not a picture
                return None
        if source.dtype != np.uint8 or source.ndim not in (2, 3):
            raise ValueError(f'the array is {source.dtype} of shape '
                             f'{source.shape}; it should be uint8, (H, W, 3).')
        return as_loaded(np.stack([source] * 3, -1)
                         if source.ndim == 2 else source)

    def run(self, data: Sequence[dict]) -> list[tuple]:
        """Run the model on a batch of what :meth:`read` returned, and give
        :func:`content_of` each."""
        batch = pseudo_collate([self._transform(dict(d)) for d in data])
        with torch.no_grad():
            return [content_of(s) for s in self.model.test_step(batch)]


def predict(inputs: str | np.ndarray | Sequence,
            model: str | Predictor,
            out_dir: str,
            score_thr: float = 0.3,
            ann_file: str | None = None,
            pictures: bool = True,
            **options) -> list[dict]:
    """Predict and write drawings, COCO results and tables.

    Into ``out_dir`` go ``pictures/`` (a video as ``NAME.mp4``),
    ``predictions.json``, ``images.json`` (which picture and class the numbers
    in there mean; together they can be opened by pycocotools),
    ``counts.csv`` and ``objects.csv``. For a classifier these are
    ``pictures/``, ``predictions.json`` and ``predictions.csv``, for a
    segmenter ``pictures/``, ``maps/`` and ``areas.csv``.

    Args:
        inputs (str | Path | np.ndarray | Sequence): As for
            :meth:`Predictor.__call__`.
        model (str | Predictor): File that the training wrote, or what was
            made of it with a config or a device.
        out_dir (str): Folder for the results. What is in it is no input.
        score_thr (float): Objects of a lower score are in predictions.json
            only. Defaults to 0.3.
        ann_file (str, optional): COCO file with the ids of the pictures, by
            file name, and of the classes. Defaults to None: both are
            counted from 1.
        pictures (bool): Whether to draw. Defaults to True.
        options: ``batch_size`` and ``tile`` of :meth:`Predictor.__call__`.

    Returns:
        list[dict]: The rows of counts.csv, predictions.csv or areas.csv.

    Raises:
        FileNotFoundError: If an input or the checkpoint is not there.
        ValueError: If nothing could be read, or an argument is not allowed.
    """
    if not 0 <= score_thr <= 1:
        raise ValueError(f'score_thr={score_thr} should be from 0 to 1.')
    found = find_inputs(inputs, out_dir)
    total = count_pictures(found)
    if not isinstance(model, Predictor):
        model = Predictor(model)
    predictions = model(found, **options)
    writer = Writer(out_dir, model.classes, score_thr, ann_file, pictures)
    with writer, Progress() as bar:
        task = bar.add_task('Predict', total=total)
        for prediction in predictions:
            writer.add(prediction)
            bar.advance(task)
        # Those that were left out are done with as well.
        bar.update(task, completed=total)
    for name, words in model.notes:
        print(f'note on {name}: {words}')
    for name, reason in model.skipped:
        print(f'skipped {name}: {reason}')
    if ann_file and writer.unnamed:
        print(f'pictures that {ann_file} does not name, with ids of their '
              f'own: {len(writer.unnamed)}, such as {writer.unnamed[0]}')
    if not writer.rows:
        raise ValueError('none of the pictures could be read.')
    return writer.rows


def content_of(sample) -> tuple:
    """What a model says in a data sample: instances, scores and pixels, as in
    :class:`Prediction`, None for what it does not predict.

    Raises:
        ValueError: If it is none of them.
    """
    if 'pred_score' in sample:
        return None, to_numpy(sample.pred_score), None
    if 'pred_sem_seg' in sample:
        return None, None, to_numpy(sample.pred_sem_seg.data[0])
    if 'pred_instances' not in sample:
        raise ValueError(
            f'the model predicts {", ".join(sample.keys()) or "nothing"}; '
            'predicting is for boxes, masks, classes of pictures and classes '
            'of pixels.')
    found = as_arrays(sample.pred_instances)
    return found[np.argsort(-found.scores, kind='stable')], None, None


def as_arrays(instances: InstanceData) -> InstanceData:
    """Boxes, labels, scores and masks of MMDetection as arrays."""
    return InstanceData(**{
        key: to_numpy(instances[key])
        for key in ('bboxes', 'labels', 'scores', 'masks')
        if key in instances})


def _classes(cfg, held, checkpoint, scope) -> tuple[str, ...]:
    """Names of the classes: the checkpoint's, else the test data's."""
    meta = held.get('meta') if isinstance(held, dict) else None
    known = [(meta or {}).get('dataset_meta')]
    for part in dicts_in(cfg.get('test_dataloader')):
        known += [part.get('metainfo'), getattr(
            find_class(DATASETS, part, scope), 'METAINFO', None)]
    for names in filter(None, known):
        # MMDetection's older ones are in capitals.
        names = names.get('classes') or names.get('CLASSES')
        if names and not isinstance(names, str):
            return tuple(names)
    raise ValueError(f'neither {checkpoint} nor its config names the classes.')


def _pipeline(cfg, scope) -> tuple[Compose, Compose]:
    """The test data's pipeline: what loads a picture, and what follows."""
    steps = next((part['pipeline'] for name in ('test', 'val')
                  for part in dicts_in(cfg.get(f'{name}_dataloader'))
                  if part.get('pipeline')), None)
    if steps is None:
        raise ValueError('the config has no test_dataloader with a pipeline, '
                         'which says how pictures are read.')
    first = next((i for i, step in enumerate(steps, 1) if is_a(
        step, 'LoadImageFromFile', TRANSFORMS, scope)), 1)
    rest = [step for step in steps[first:] if not is_a(
        step, 'LoadAnnotations', TRANSFORMS, scope)]
    return Compose(steps[:first]), Compose(rest)
