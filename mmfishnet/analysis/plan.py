# Copyright (c) mmfishnet authors. All rights reserved.
"""What a training will take: steps, hours and memory, before it is started.

Nothing here knows how fast a GPU is: hours follow from the time of a step,
which the log of a short run shows.
"""
from __future__ import annotations

import math
import os.path as osp
from copy import deepcopy
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import Tensor, nn

from ..checkpoints.pretrained import drop_pretrained
from .complexity import image_channels, measure_kept_bytes, measure_recomputed
from .schedule import TRAIN_IMAGES, published_images


@dataclass(frozen=True)
class Plan:
    """The steps of a training on a number of GPUs.

    Attributes:
        images (int): Images in an epoch.
        epochs (int): Epochs.
        batch_size (int): Images on a GPU in a step.
        gpus (int): GPUs of all hosts together.
        lr (float, optional): The config's learning rate. Defaults to None.
        base_batch_size (int, optional): Images in a step that it is meant
            for. Defaults to None.
    """

    images: int
    epochs: int
    batch_size: int
    gpus: int
    lr: float | None = None
    base_batch_size: int | None = None

    @property
    def epoch_steps(self) -> int:
        """Steps in an epoch: each GPU has the same number of images."""
        return math.ceil(math.ceil(self.images / self.gpus) / self.batch_size)

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.epoch_steps

    @property
    def step_images(self) -> int:
        """Images in a step, on all GPUs."""
        return self.gpus * self.batch_size

    @property
    def scaled_lr(self) -> float | None:
        """What ``--auto-scale-lr`` makes of the learning rate."""
        if self.lr is None or self.base_batch_size is None:
            return None
        return self.lr * self.step_images / self.base_batch_size

    @property
    def counts_for_base(self) -> int | None:
        """``accumulative_counts`` that make the batch the one that the
        learning rate is meant for; None if no number does."""
        counts, rest = divmod(self.base_batch_size or 0, self.step_images)
        return counts if counts and rest == 0 else None

    def images_per_second(self, step_time: float) -> float:
        """Images a second, of a step's time in seconds."""
        return self.step_images / step_time

    def hours(self, step_time: float) -> float:
        """Hours of all steps, of a step's time in seconds."""
        return self.steps * step_time / 3600


def count_images(cfg: Config) -> int:
    """Images in an epoch of a config.

    Args:
        cfg (Config): Config. If its annotations are there, the data set is
            built and asked; else it is taken for COCO train2017 or ImageNet.

    Returns:
        int: The number of images.

    Raises:
        ValueError: If neither tells.
    """
    dataset = cfg.train_dataloader.dataset
    file = dataset.get('ann_file')
    if file and osp.isfile(osp.join(dataset.get('data_root') or '', file)):
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        return len(DATASETS.build(deepcopy(dataset)))
    images = published_images(cfg)
    if images is None:
        raise ValueError(
            f'the training images of {dataset.type} are not here, and their '
            f'number is known for {" and ".join(TRAIN_IMAGES)} only; give it '
            '(--images).')
    return images


def plan_training(cfg: Config, gpus: int, images: int | None = None) -> Plan:
    """Read the steps of a training from its config.

    Args:
        cfg (Config): Config.
        gpus (int): GPUs of all hosts together.
        images (int, optional): Images in an epoch. Defaults to None, see
            :func:`count_images`.

    Returns:
        Plan: The plan.

    Raises:
        ValueError: If ``gpus`` or ``images`` is not positive, or the config
            does not count in epochs.
    """
    for name, value in (('gpus', gpus), ('images', images)):
        if value is not None and value < 1:
            raise ValueError(f'{name}={value} should be at least 1.')
    if not cfg.train_cfg.get('max_epochs'):
        raise ValueError('train_cfg.max_epochs is not set: the config does '
                         'not count in epochs.')
    return Plan(
        images=count_images(cfg) if images is None else images,
        epochs=cfg.train_cfg.max_epochs,
        batch_size=cfg.train_dataloader.batch_size,
        gpus=gpus,
        lr=cfg.optim_wrapper.optimizer.get('lr'),
        base_batch_size=(cfg.get('auto_scale_lr') or {}).get(
            'base_batch_size'))


# Memory ---------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """Bytes of a detector's training step with one image on a GPU.

    Attributes:
        backbone (int): What autograd keeps of the backbone.
        neck (int): What it keeps of the neck beyond that.
        heads (int): What it keeps of the heads beyond that.
        recomputed (int): What it keeps of the largest block while the
            backward pass recomputes it; 0 without ``with_cp``.
        state (int): Parameters, gradients, momentum, and in mixed precision
            the parameters in half precision.
    """

    backbone: int
    neck: int
    heads: int
    recomputed: int
    state: int

    @property
    def total(self) -> int:
        return (self.backbone + self.neck + self.heads + self.recomputed +
                self.state)


class _Loss(nn.Module):
    """A detector's losses of given objects, as a function of the images."""

    def __init__(self, detector: nn.Module, samples: list) -> None:
        super().__init__()
        self.detector = detector
        self.samples = samples

    def forward(self, images: Tensor) -> list[Tensor]:
        losses = []
        for loss in self.detector.loss(images, self.samples).values():
            losses += loss if isinstance(loss, (list, tuple)) else [loss]
        return losses


def image_size(cfg: Config) -> tuple[int, int]:
    """Height and width of a landscape picture as the config resizes it.

    Args:
        cfg (Config): Config whose training pipeline has a Resize of one
            scale.

    Returns:
        tuple[int, int]: Height and width.

    Raises:
        ValueError: If it has none.
    """
    for transform in cfg.train_dataloader.dataset.get('pipeline', ()):
        scale = transform.get('scale')
        if transform.type == 'Resize' and scale is not None:
            return min(scale), max(scale)
    raise ValueError('the training pipeline has no Resize of one scale; give '
                     'the size of the images (--size).')


def _build(cfg: Config, device: str, with_cp: bool) -> nn.Module:
    model = deepcopy(cfg.model)
    drop_pretrained(model)
    # An argument only where it is asked for: not every backbone has it.
    model.backbone.pop('with_cp', None)
    if with_cp:
        model.backbone.with_cp = True
    init_default_scope('mmdet')
    with torch.device(device):
        return MODELS.build(model)


def _image(cfg: Config, model: nn.Module, size: tuple[int, int],
           half: bool) -> Tensor:
    """An image on 'meta' of the size to which the config pads."""
    divisor = (cfg.model.get('data_preprocessor')
               or {}).get('pad_size_divisor', 1)
    padded = (math.ceil(n / divisor) * divisor for n in size)
    dtype = torch.half if half else torch.float
    return torch.empty(
        1, image_channels(model), *padded, device='meta', dtype=dtype)


def measure_heads(cfg: Config, size: tuple[int, int]) -> int:
    """Measure what autograd keeps of a detector's heads for one image.

    The whole detector computes its losses once on the CPU. The image has 128
    objects, so that the samplers of the region heads find as many positive
    regions as they want: what is measured is the most that it can be.

    Args:
        cfg (Config): Config of an MMDetection detector.
        size (tuple[int, int]): Height and width of the image, before it is
            padded.

    Returns:
        int: Bytes beyond those of backbone and neck.
    """
    # Here: MMDetection is optional, and this is for its detectors.
    from mmdet.testing import demo_mm_inputs
    model = _build(cfg, 'cpu', with_cp=False)
    data = demo_mm_inputs(
        1, [(image_channels(model), *size)],
        num_items=[128],
        with_mask=True,
        use_box_type=True)
    for sample in data['data_samples']:
        sample.gt_instances.labels.zero_()
    data = model.data_preprocessor(data, True)
    whole = measure_kept_bytes(
        _Loss(model, data['data_samples']), data['inputs'])
    image = _image(cfg, model, size, half=False)
    return whole - measure_kept_bytes(
        _features(_build(cfg, 'meta', with_cp=False)), image)


def _features(model: nn.Module) -> nn.Module:
    if not model.with_neck:
        return model.backbone
    return nn.Sequential(model.backbone, model.neck)


def measure_memory(cfg: Config,
                   size: tuple[int, int],
                   heads: int,
                   with_cp: bool = False,
                   half: bool = False) -> Memory:
    """Memory of a detector's training step with one image.

    Backbone and neck are recorded on the device 'meta', where autograd keeps
    the same and nothing is computed. On a GPU come on top: its context,
    workspaces, the gradients of features and the allocator's slack.

    Args:
        cfg (Config): Config of an MMDetection detector that is trained by
            SGD with momentum.
        size (tuple[int, int]): Height and width of the image, before it is
            padded.
        heads (int): What :func:`measure_heads` returned.
        with_cp (bool): Whether the backbone's blocks are recomputed in the
            backward pass. Defaults to False.
        half (bool): Whether features are kept in half precision, as by
            ``--amp``: backbone and neck are recorded so, the heads are taken
            for a half. Defaults to False.

    Returns:
        Memory: Bytes.
    """
    model = _build(cfg, 'meta', with_cp)
    count = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    image = _image(cfg, model, size, half)
    if half:
        model.half()
    backbone = measure_kept_bytes(model.backbone, image)
    both = measure_kept_bytes(_features(model), image)
    recomputed = measure_recomputed(model.backbone,
                                    image) if with_cp else 0
    return Memory(
        backbone=backbone,
        neck=both - backbone,
        heads=heads // 2 if half else heads,
        recomputed=recomputed,
        state=4 * (count + 2 * trained) + (2 * count if half else 0))
