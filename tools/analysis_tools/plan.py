# Copyright (c) mmfishnet authors. All rights reserved.
"""Plan the training of a config: steps, hours, learning rate and memory.

Nothing here knows how fast a GPU is: the time of a step is what the log of a
short run shows as `time`.
"""
from __future__ import annotations

import argparse
import math
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope
from torch import Tensor, nn

import mmfishnet  # noqa: F401 (configs may inherit from 'mmfishnet::')
from mmfishnet.checkpoints.pretrained import drop_pretrained
from mmfishnet.engine.errors import short_errors
from mmfishnet.kinds import is_a, scope_of
from mmfishnet.models.built import image_channels
from schedule import count_images, epoch_steps
from step_memory import measure_kept_bytes, measure_recomputed
from tables import MIB, Cells


@dataclass(frozen=True)
class Plan:
    """The steps of a training on a number of GPUs."""

    images: int  # in an epoch
    epochs: int
    gpus: int  # of all hosts together
    loader: dict  # config of the training's dataloader
    lr: float | None = None  # the config's learning rate
    base_batch_size: int | None = None  # images in a step that it is meant for

    @property
    def epoch_steps(self) -> int:
        """Steps in an epoch."""
        return epoch_steps(
            self.images, self.loader.get('batch_size', 1), self.gpus,
            self.loader.get('drop_last', False))

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.epoch_steps

    @property
    def step_images(self) -> int:
        """Images in a step, on all GPUs."""
        return self.gpus * self.loader.get('batch_size', 1)

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


def plan_training(cfg: Config, gpus: int, images: int | None = None) -> Plan:
    """Read the steps of a training from its config, with a number of GPUs of
    all hosts together, and of images in an epoch if it is not to be asked."""
    for name, value in (('gpus', gpus), ('images', images)):
        if value is not None and value < 1:
            raise ValueError(f'{name}={value} should be at least 1.')
    if not cfg.train_cfg.get('max_epochs'):
        raise ValueError('train_cfg.max_epochs is not set: the config does '
                         'not count in epochs.')
    return Plan(count_images(cfg) if images is None else images,
                cfg.train_cfg.max_epochs, gpus, cfg.train_dataloader,
                lr=cfg.optim_wrapper.get('optimizer', {}).get('lr'),
                base_batch_size=(cfg.get('auto_scale_lr') or {}).get(
                    'base_batch_size'))


# Memory ---------------------------------------------------------------------


class Memory(NamedTuple):
    """Bytes of a detector's training step with one image on a GPU."""

    backbone: int  # what autograd keeps of it
    neck: int  # what it keeps of the neck beyond that
    heads: int  # what it keeps of the heads beyond that
    recomputed: int  # of the largest part that with_cp recomputes, else 0
    state: int  # parameters (with --amp in both precisions), gradients,
    # momentum


class _Loss(nn.Module):
    """A detector's losses of given objects, as a function of the images."""

    def __init__(self, detector: nn.Module, samples: list) -> None:
        super().__init__()
        self.detector = detector
        self.samples = samples

    def forward(self, images: Tensor) -> tuple:
        return tuple(self.detector.loss(images, self.samples).values())


def image_size(cfg: Config) -> tuple[int, int]:
    """Height and width of a landscape picture as the config resizes it."""
    for transform in cfg.train_dataloader.dataset.get('pipeline', ()):
        scale = transform.get('scale')
        if scale is not None and is_a(transform, 'Resize', TRANSFORMS,
                                      scope_of(cfg)):
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


def _image(model: nn.Module, size: tuple[int, int], half: bool) -> Tensor:
    """An image on 'meta' of the size to which the model pads."""
    divisor = getattr(model.data_preprocessor, 'pad_size_divisor', 1)
    padded = (math.ceil(n / divisor) * divisor for n in size)
    return torch.empty(1, image_channels(model), *padded, device='meta',
                       dtype=torch.half if half else torch.float)


def _features(model: nn.Module) -> nn.Module:
    if not model.with_neck:
        return model.backbone
    return nn.Sequential(model.backbone, model.neck)


def measure_heads(cfg: Config, size: tuple[int, int]) -> int:
    """Measure the bytes that autograd keeps of a detector's heads, beyond
    backbone and neck, for one image of ``size`` (before it is padded).

    The whole detector computes its losses once on the CPU. The image has 128
    objects, so that the samplers of the region heads find as many positive
    regions as they want: what is measured is the most that it can be.
    """
    # Here: MMDetection is optional, and this is for its detectors.
    from mmdet.testing import demo_mm_inputs
    model = _build(cfg, 'cpu', with_cp=False)
    data = demo_mm_inputs(1, [(image_channels(model), *size)],
                          num_items=[128], with_mask=True, use_box_type=True)
    for sample in data['data_samples']:
        sample.gt_instances.labels.zero_()
    data = model.data_preprocessor(data, True)
    whole = measure_kept_bytes(
        _Loss(model, data['data_samples']), data['inputs'])
    meta = _build(cfg, 'meta', with_cp=False)
    return whole - measure_kept_bytes(
        _features(meta), _image(meta, size, half=False))


def measure_memory(cfg: Config, size: tuple[int, int], heads: int,
                   with_cp: bool = False,
                   half: bool = False) -> Memory:
    """Memory of the training step of an MMDetection detector, by SGD with
    momentum, with one image of ``size`` (before it is padded).

    Backbone and neck are recorded on the device 'meta', where autograd keeps
    the same and nothing is computed; ``heads`` is what :func:`measure_heads`
    returned. With ``half``, as by ``--amp``, backbone and neck are recorded
    in half precision, and the heads are taken for a half. On a GPU come on
    top: its context, workspaces, the gradients of features and the
    allocator's slack.
    """
    model = _build(cfg, 'meta', with_cp)
    image = _image(model, size, half)
    if half:
        model.half()
    backbone = measure_kept_bytes(model.backbone, image)
    both = measure_kept_bytes(_features(model), image)
    count = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Memory(
        backbone=backbone, neck=both - backbone,
        heads=heads // 2 if half else heads,
        recomputed=measure_recomputed(model.backbone, image) if with_cp else 0,
        state=4 * (count + 2 * trained) + (2 * count if half else 0))


# The command ----------------------------------------------------------------


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('config', help='config file')
    add('--gpus', type=int, default=16, metavar='N',
        help='GPUs of all hosts together (default: 16)')
    add('--step-time', type=float, nargs='+', metavar='SECONDS',
        default=[n / 10 for n in range(2, 11)],
        help='time of a training step (default: 0.2, 0.3, ... 1.0)')
    add('--images', type=int, metavar='N',
        help='images in an epoch (default: those of the data set, or of COCO '
        'train2017 or ImageNet where it is not there)')
    add('--memory', action='store_true',
        help='measure the memory of a step of a detector as well, which '
        'computes one on the CPU')
    add('--size', type=int, nargs=2, metavar=('H', 'W'),
        help='size of the image for --memory (default: a landscape picture '
        'as the config resizes it)')
    add('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override settings of the config')
    args = parser.parse_args()
    if min(args.step_time) <= 0:
        parser.error('--step-time should be above 0')
    if args.size and min(args.size) < 32:
        parser.error('--size should be at least 32')
    return args


def describe_plan(plan):
    """Lines on steps and learning rate."""
    yield (f'{plan.epochs} epochs of {plan.images} images on {plan.gpus} GPUs '
           f'with {plan.step_images // plan.gpus} each: {plan.step_images} '
           f'images a step, {plan.epoch_steps} steps an epoch, {plan.steps} '
           'steps')
    if plan.scaled_lr is None or plan.step_images == plan.base_batch_size:
        return
    yield (f'learning rate {plan.lr:g} is for {plan.base_batch_size} images '
           f'a step: --auto-scale-lr makes it {plan.scaled_lr:g}')
    if plan.counts_for_base:
        yield (f'or leave it and take {plan.counts_for_base} steps together: '
               '--cfg-options optim_wrapper.accumulative_counts='
               f'{plan.counts_for_base}')


def tabulate_hours(plan, step_times):
    """Hours by the seconds of a step."""
    rows = []
    for time in step_times:
        hours = plan.steps * time / 3600
        rows.append((f'{time:g}', f'{plan.step_images / time:.1f}',
                     f'{hours / plan.epochs:.2f}', f'{hours:.1f}'))
    return Cells(('Step, s', 'Images a second', 'Hours an epoch', 'Hours'),
                 rows, 'Training', 'without validation', names=0)


def tabulate_memory(cfg, size):
    heads = measure_heads(cfg, size)
    rows = []
    for half in (False, True):
        for with_cp in (False, True):
            name = ' '.join(['--amp'] * half + ['with_cp'] * with_cp)
            memory = measure_memory(cfg, size, heads, with_cp, half)
            rows.append((name or 'float32', *(
                f'{n / MIB:.0f}' for n in (*memory, sum(memory)))))
    return Cells(
        ('', 'Backbone', 'Neck', 'Heads', 'Recomputed', 'State', 'Together'),
        rows, 'Memory of a step with one image of {}x{}, MiB'.format(*size),
        'Kept by autograd of backbone and neck, recorded; of the heads, '
        'measured on the CPU in float32 and halved for --amp. Recomputed: '
        "with_cp's largest block. State: parameters, gradients, momentum. A "
        "GPU's context, workspaces and the gradients of features come on top.")


def main():
    args = parse_args()
    with short_errors(ValueError, FileNotFoundError):
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(args.cfg_options or {})
        plan = plan_training(cfg, args.gpus, args.images)
        print(*describe_plan(plan), sep='\n')
        tabulate_hours(plan, args.step_time).show()
        if args.memory:
            if scope_of(cfg) != 'mmdet':
                raise ValueError('--memory is for configs of MMDetection.')
            size = tuple(args.size or image_size(cfg))
            tabulate_memory(cfg, size).show()


if __name__ == '__main__':
    main()
