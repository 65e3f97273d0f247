# Copyright (c) mmfishnet authors. All rights reserved.
"""Predict on pictures, folders, videos and URLs.

The models are run by MMDetection's and MMPretrain's own inferencers; here is
what lies around them: inputs, drawings, and files that other tools read.
"""
from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader
from mmengine.structures import InstanceData
from rich.progress import Progress

from ..checkpoints import read_checkpoint
from ..models.pretrained_module import check_fit
from .files import Writer
from .inputs import Picture, count_pictures, find_inputs, load_inputs


@dataclass
class Prediction:
    """What a model says of a picture.

    Attributes:
        picture (Picture): Name and pixels.
        instances (InstanceData, optional): A detector's ``bboxes`` (n, 4),
            ``labels``, ``scores`` and ``masks`` (n, H, W) if it has masks,
            all as arrays, the best ones first.
        scores (np.ndarray, optional): A classifier's score of each class.
    """
    picture: Picture
    instances: InstanceData | None = None
    scores: np.ndarray | None = None


class Predictor:
    """A trained model, ready to predict.

    Args:
        checkpoint (str): File that the training wrote.
        config (str | Config, optional): Config file or config. Defaults to
            None: the one that the checkpoint carries.
        device (str, optional): Such as 'cpu' or 'cuda:0'. Defaults to None:
            the GPU if there is one.

    Attributes:
        classes (tuple[str]): Names of the classes.
        detects (bool): Whether it is a detector and not a classifier.

    Raises:
        FileNotFoundError: If the checkpoint is not there.
        CheckpointError: If it does not fit the model, or is damaged.
        ValueError: If no config is given and the checkpoint carries none, or
            if the model is of another kind.

    Example:
        >>> model = Predictor('work_dirs/mine/epoch_12.pth')
        >>> for prediction in model('my_pictures/', batch_size=4):
        ...     print(prediction.picture.name, len(prediction.instances))
    """

    def __init__(self,
                 checkpoint: str,
                 config: str | Config | None = None,
                 device: str | None = None) -> None:
        held = read_checkpoint(checkpoint)
        cfg = _config(checkpoint, held, config)
        # Where a training sent its log is of no concern here.
        (cfg.get('visualizer') or {}).pop('vis_backends', None)
        scope = cfg.get('default_scope')
        # Each is imported where it is needed: either takes seconds.
        if scope == 'mmdet':
            from mmdet.apis import DetInferencer
            self._inferencer = DetInferencer(
                cfg, checkpoint, device, show_progress=False)
            meta = self._inferencer.model.dataset_meta
        elif scope == 'mmpretrain':
            from mmpretrain import ImageClassificationInferencer
            self._inferencer = ImageClassificationInferencer(
                cfg, checkpoint, device)
            meta = dict(classes=self._inferencer.classes)
        else:
            raise ValueError(
                f'default_scope of the config is {scope!r}; predicting is for '
                "detectors ('mmdet') and classifiers ('mmpretrain').")
        # As it was loaded: under our names, where loading translates.
        check_fit(self._inferencer.model,
                  CheckpointLoader.load_checkpoint(checkpoint, 'cpu'),
                  checkpoint)
        self.detects = scope == 'mmdet'
        if not meta.get('classes'):
            raise ValueError(
                f'neither {checkpoint} nor its config names the classes.')
        self.classes = tuple(meta['classes'])
        self.skipped = []

    def __call__(self,
                 inputs: str | np.ndarray | Sequence,
                 batch_size: int = 1) -> Iterator[Prediction]:
        """Predict, picture by picture.

        Args:
            inputs (str | Path | np.ndarray | Sequence): Picture, folder (at
                any depth), video, URL, array (BGR, uint8), or several of
                them.
            batch_size (int): Pictures that go through the model at a time.
                Defaults to 1.

        Yields:
            Prediction: One a picture, in the order of the inputs. What could
            not be read is left out and stands in ``self.skipped`` afterwards,
            as (name, reason).
        """
        yield from self._run(find_inputs(inputs), batch_size)

    def _run(self, found: Sequence, batch_size: int) -> Iterator[Prediction]:
        waiting = deque()
        self.skipped = []

        def sources():
            for picture in load_inputs(found, self.skipped):
                waiting.append(picture)
                yield picture.source

        batches = self._inferencer.preprocess(sources(), batch_size)
        for batch in batches:
            if isinstance(batch, (tuple, list)):  # DetInferencer's
                batch = batch[1]
            # They are taken from the queue at once: the next batch may be
            # loading.
            results = self._inferencer.forward(batch)
            for result in results:
                yield self._prediction(waiting.popleft(), result)

    def _prediction(self, picture, result) -> Prediction:
        if not self.detects:
            return Prediction(picture, scores=_array(result.pred_score))
        if 'pred_instances' not in result:
            raise ValueError(
                'the detector predicts '
                f'{", ".join(result.keys()) or "nothing"} and no instances; '
                'predicting is for detectors of boxes or masks.')
        instances = InstanceData()
        for key in ('bboxes', 'labels', 'scores', 'masks'):
            if key in result.pred_instances:
                value = result.pred_instances[key]
                instances[key] = _array(getattr(value, 'tensor', value))
        order = np.argsort(-instances.scores, kind='stable')
        return Prediction(picture, instances[order])

    @property
    def backbone(self) -> torch.nn.Module:
        """The model's backbone."""
        return self._inferencer.model.backbone


def predict(inputs: str | np.ndarray | Sequence,
            checkpoint: str,
            out_dir: str,
            config: str | Config | None = None,
            device: str | None = None,
            batch_size: int = 1,
            score_thr: float = 0.3,
            ann_file: str | None = None,
            pictures: bool = True,
            progress: bool = True) -> list[dict]:
    """Predict and write drawings, COCO results and tables.

    Into ``out_dir`` go ``pictures/`` (a video as ``NAME.mp4``),
    ``predictions.json``, ``images.json`` (which picture and class the numbers
    in there mean; together they can be opened by pycocotools),
    ``counts.csv`` and ``objects.csv``. For a classifier these are
    ``pictures/``, ``predictions.json`` and ``predictions.csv``.

    Args:
        inputs (str | Path | np.ndarray | Sequence): Picture, folder (at any
            depth), video, URL, array (BGR, uint8), or several of them.
        checkpoint (str): File that the training wrote.
        out_dir (str): Folder for the results.
        config (str | Config, optional): Config file or config. Defaults to
            None: the one that the checkpoint carries.
        device (str, optional): Such as 'cpu' or 'cuda:0'. Defaults to None:
            the GPU if there is one.
        batch_size (int): Pictures that go through the model at a time.
            Defaults to 1.
        score_thr (float): Objects of a lower score are in predictions.json
            only. Defaults to 0.3.
        ann_file (str, optional): COCO file with the ids of the pictures, by
            file name, and of the classes. Defaults to None: both are
            counted from 1.
        pictures (bool): Whether to draw. Defaults to True.
        progress (bool): Whether to show a progress bar. Defaults to True.

    Returns:
        list[dict]: The rows of counts.csv, or of predictions.csv.

    Raises:
        FileNotFoundError: If an input or the checkpoint is not there.
        ValueError: If nothing could be read, or an argument is not allowed.
    """
    if not 0 <= score_thr <= 1:
        raise ValueError(f'score_thr={score_thr} should be from 0 to 1.')
    if batch_size < 1:
        raise ValueError(f'batch_size={batch_size} should be at least 1.')
    found = find_inputs(inputs)
    total = count_pictures(found)
    model = Predictor(checkpoint, config, device)
    writer = Writer(out_dir, model, score_thr, ann_file, pictures)
    with writer, Progress(disable=not progress) as bar:
        task = bar.add_task('Predict', total=total)
        for prediction in model._run(found, batch_size):
            writer.add(prediction)
            bar.advance(task)
        # Those that were left out are done with as well.
        bar.update(task, completed=total)
    for name, reason in model.skipped:
        print(f'skipped {name}: {reason}')
    if ann_file and writer.unnamed:
        print(f'pictures that {ann_file} does not name, with ids of their '
              f'own: {len(writer.unnamed)}, such as {writer.unnamed[0]}')
    if len(model.skipped) == total:
        raise ValueError('none of the pictures could be read.')
    return writer.rows


def _array(value) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(
        value, torch.Tensor) else np.asarray(value)


def _config(checkpoint, held, config) -> Config:
    """The config that is given, or the one in the checkpoint's meta."""
    if config is None:
        meta = held.get('meta') if isinstance(held, dict) else None
        text = (meta or {}).get('cfg')
        if not text:
            raise ValueError(
                f'{checkpoint} carries no config; name the one that it was '
                'trained with (--config FILE).')
        return Config.fromstring(text, '.py')
    # The inferencers change what they are given.
    return (
        copy.deepcopy(config)
        if isinstance(config, Config) else Config.fromfile(config))
