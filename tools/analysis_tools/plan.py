# Copyright (c) mmfishnet authors. All rights reserved.
"""Plan the training of a config: steps, hours, learning rate and memory.

The time of a step is what the log of a short run shows as `time`.
"""
from __future__ import annotations

import argparse
import math
import os.path as osp
import sys
from copy import deepcopy
from dataclasses import dataclass

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import DATASETS, MODELS, init_default_scope
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import mmfishnet  # noqa: F401 (configs may inherit from 'mmfishnet::')
from mmfishnet.checkpoints.pretrained import drop_pretrained
from mmfishnet.models.probe import image_channels
from schedule import TRAIN_IMAGES, published_images
from step_memory import measure_kept_bytes, measure_recomputed


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


STEP_TIMES = tuple(n / 10 for n in range(2, 11))
MIB = 2**20


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--gpus',
        type=int,
        default=16,
        metavar='N',
        help='GPUs of all hosts together (default: 16)')
    parser.add_argument(
        '--step-time',
        type=float,
        nargs='+',
        default=STEP_TIMES,
        metavar='SECONDS',
        help='time of a training step (default: 0.2, 0.3, ... 1.0)')
    parser.add_argument(
        '--images',
        type=int,
        metavar='N',
        help='images in an epoch (default: those of the data set, or of COCO '
        'train2017 or ImageNet where it is not there)')
    parser.add_argument(
        '--memory',
        action='store_true',
        help='measure the memory of a step of a detector as well, which '
        'computes one on the CPU')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='size of the image for --memory (default: a landscape picture '
        'as the config resizes it)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config')
    args = parser.parse_args()
    if min(args.step_time) <= 0:
        parser.error('--step-time should be above 0')
    if args.size and min(args.size) < 32:
        parser.error('--size should be at least 32')
    return args


def describe(plan):
    """Lines on steps and learning rate."""
    yield (f'{plan.epochs} epochs of {plan.images} images on {plan.gpus} GPUs '
           f'with {plan.batch_size} each: {plan.step_images} images a step, '
           f'{plan.epoch_steps} steps an epoch, {plan.steps} steps')
    if plan.scaled_lr is None or plan.step_images == plan.base_batch_size:
        return
    yield (f'learning rate {plan.lr:g} is for {plan.base_batch_size} images '
           f'a step: --auto-scale-lr makes it {plan.scaled_lr:g}')
    if plan.counts_for_base:
        yield (f'or leave it and take {plan.counts_for_base} steps together: '
               '--cfg-options optim_wrapper.accumulative_counts='
               f'{plan.counts_for_base}')


def time_table(plan, step_times):
    table = Table(title='Training', caption='without validation')
    for column in ('Step, s', 'Images a second', 'Hours an epoch', 'Hours'):
        table.add_column(column, justify='right')
    for time in step_times:
        hours = plan.hours(time)
        table.add_row(f'{time:g}', f'{plan.images_per_second(time):.1f}',
                      f'{hours / plan.epochs:.2f}', f'{hours:.1f}')
    return table


def memory_table(cfg, size):
    table = Table(
        title='Memory of a step with one image of {}x{}, MiB'.format(*size),
        caption='Kept by autograd of backbone and neck, recorded; of the '
        'heads, measured on the CPU in float32 and halved for --amp. '
        "Recomputed: with_cp's largest block. State: parameters, gradients, "
        "momentum. A GPU's context, workspaces and the gradients of features "
        'come on top.')
    for column in ('', 'Backbone', 'Neck', 'Heads', 'Recomputed', 'State',
                   'Together'):
        table.add_column(column, justify='right' if column else 'left')
    heads = measure_heads(cfg, size)
    for half in (False, True):
        for with_cp in (False, True):
            name = ' '.join(['--amp'] * half + ['with_cp'] * with_cp)
            memory = measure_memory(cfg, size, heads, with_cp, half)
            table.add_row(
                name or 'float32', *(f'{n / MIB:.0f}' for n in (
                    memory.backbone, memory.neck, memory.heads,
                    memory.recomputed, memory.state, memory.total)))
    return table


def main():
    args = parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(args.cfg_options or {})
        plan = plan_training(cfg, args.gpus, args.images)
        for line in describe(plan):
            console.print(line, highlight=False)
        console.print(time_table(plan, args.step_time))
        if args.memory:
            if cfg.get('default_scope') != 'mmdet':
                raise ValueError('--memory is for configs of MMDetection.')
            size = tuple(args.size or image_size(cfg))
            console.print(memory_table(cfg, size))
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f'error: {error}') from None


if __name__ == '__main__':
    main()
