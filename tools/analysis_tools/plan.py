# Copyright (c) mmfishnet authors. All rights reserved.
"""Plan the training of a config: steps, hours, learning rate and memory.

The time of a step is what the log of a short run shows as `time`.
"""
import argparse
import sys

from mmengine.config import Config, DictAction
from rich.console import Console
from rich.table import Table

import mmfishnet  # noqa: F401 (configs may inherit from 'mmfishnet::')
from mmfishnet.analysis.plan import (
    image_size,
    measure_heads,
    measure_memory,
    plan_training,
)

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
