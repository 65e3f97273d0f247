# Copyright (c) mmfishnet authors. All rights reserved.
"""Evaluators, batches of a validation, and what is saved as the best."""
from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import islice

import numpy as np
import torch
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseModel
from PIL import Image

from ..words import first_few
from .built import Part, is_known, owner
from .problem import Problem, error, warning

AP = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
AR = ('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000')
IOU = dict(mIoU=('mIoU', 'mAcc'), mDice=('mDice', 'mAcc'),
           mFscore=('mFscore', 'mPrecision', 'mRecall'))
BATCHES = 20  # of a validation, whose pictures' sizes are looked at


def _coco(metric) -> list[str] | None:
    if metric.classwise:
        return None  # names of classes are added
    items = metric.metric_items
    found = []
    for kind in metric.metrics:
        if kind == 'proposal':
            found += items or AR
        elif kind == 'proposal_fast':
            found += [f'AR@{n}' for n in metric.proposal_nums]
        else:
            found += [f'{kind}_{item}' for item in items or AP]
    return found


# Names of the numbers that a metric reports, without its prefix.
REPORTED = dict(
    CocoMetric=_coco,
    CocoPanopticMetric=lambda m: ['PQ', 'SQ', 'RQ', 'PQ_th', 'SQ_th', 'RQ_th',
                                  'PQ_st', 'SQ_st', 'RQ_st'],
    IoUMetric=lambda m: ['aAcc', *(n for kind in m.metrics
                                   for n in IOU.get(kind, ()))],
    Accuracy=lambda m: [f'top{k}' for k in m.topk] if len(m.thrs) == 1 else
    None)


def check_topk(part: Part, count: int | None, head) -> Iterator[Problem]:
    """``topk`` above the number of classes."""
    askers = [(f'{part.name}_evaluator.topk', metric) for metric, _ in
              part.metrics if type(metric).__name__ == 'Accuracy']
    if getattr(head, 'cal_acc', False) and part.name == 'train':
        askers.append(('model.head.topk', head))
    for key, asker in askers:
        topk = asker.topk if isinstance(asker.topk, Sequence) else (
            asker.topk, )
        if count and is_known(type(asker)) and max(topk) > count:
            good = tuple(k for k in topk if k <= count) or (1, )
            yield error(
                key, f'it is {tuple(topk)}, and the model has {count} classes:'
                f' there is no top {max(topk)} of them. Set it to {good}')


def check_best(part: Part, hooks: Sequence[Hook]) -> Iterator[Problem]:
    """``save_best`` without such a number.

    Losses of the validation come from a hook or from the model, and a hook of
    one's own may report anything.
    """
    if not all(is_known(type(hook)) for hook in hooks):
        return
    names = []
    for metric, _ in part.metrics:
        reported = REPORTED.get(type(metric).__name__)
        if not reported or not is_known(type(metric)):
            return  # anything may be reported
        found = reported(metric)
        if found is None:
            return
        names += [f'{metric.prefix}/{n}' if metric.prefix else n
                  for n in found]
    if part.prefixes is not None:
        names = [f'{p}/{n}' for p in part.prefixes for n in names]
    for hook in hooks:
        if not isinstance(hook, CheckpointHook) or not part.metrics:
            continue
        best = getattr(hook, 'save_best', None) or []
        best = [best] if isinstance(best, str) else list(best)
        wrong = [n for n in best if n != 'auto' and n not in names
                 and not n.startswith('val_')]
        if wrong:
            yield error(
                'default_hooks.checkpoint.save_best', f'{first_few(wrong)} is '
                f'not what {part.name}_evaluator reports: '
                f'{first_few(names, 12)}')


def check_batches(part: Part, model) -> Iterator[Problem]:
    """Make a batch of the validation as the run will make it.

    Args:
        part (Part): Validation or test.
        model (nn.Module, optional): Without wrappers.
    """
    loader, preprocessor = part.loader, None
    paths = [r['img_path'] for d in part.data for r in d.records if d.whole]
    # Views of one picture, and steps of one's own, are batched otherwise.
    if model is not None and owner(type(model), 'val_step') is BaseModel and \
            not any(type(t).__name__ == 'TestTimeAug'
                    for d in part.data for t in d.transforms):
        preprocessor = model.data_preprocessor
    sampler = getattr(loader, 'sampler', None)
    if type(sampler) is not DefaultSampler or sampler.shuffle:
        return
    batches = [list(b) for b in islice(loader.batch_sampler, BATCHES)]
    mixed = next((b for b in batches if len(_sizes(b, paths)) > 1), None)
    for batch in batches[:1] + ([mixed] if mixed else []):
        try:
            items = [loader.dataset[i] for i in batch]
        except Exception:  # said of the files, or to be said by the run
            continue
        try:
            data = loader.collate_fn(items)
            if preprocessor is not None:
                deepcopy(preprocessor)(data, False)
            continue
        except NotImplementedError:  # without memory for its weights
            continue
        except Exception as fault:
            raised = fault
        sizes = _sizes(batch, paths)
        certain = batch is mixed and (
            preprocessor is None or is_known(type(preprocessor)))
        yield (error if certain else warning)(
            f'{part.name}_dataloader', f'the pictures {first_few(batch)} '
            f'cannot be put into one batch of {loader.batch_size}' +
            (f': they have different sizes ({first_few(sorted(sizes))}, width '
             'and height), and are not brought to one. Set batch_size=1, or '
             'resize them to one size' if len(sizes) > 1 else '') +
            f' ({type(raised).__name__}: {raised})')
        return


def _sizes(batch: list[int], paths: Sequence[str]) -> set:
    sizes = set()
    for i in batch:
        try:
            with Image.open(paths[i]) as image:
                sizes.add(image.size)
        except Exception:  # not a picture, or not a file
            pass
    return sizes


@contextmanager
def same_numbers() -> Iterator[None]:
    """Leave the random numbers as they were."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
