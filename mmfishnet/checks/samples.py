# Copyright (c) mmfishnet authors. All rights reserved.
"""A sample as the pipeline makes it, against those that read it."""
from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

from mmengine.dataset import BaseDataset
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.structures import BaseDataElement
from torch import nn

from ..words import first_few, short
from .built import KNOWN, Data, Part, is_known, owner
from .problem import Problem, error, warning

TRIED = 3  # records of a data set
ADVICE = dict(
    bboxes='Set LoadAnnotations(with_bbox=True)',
    masks='Set LoadAnnotations(with_mask=True)',
    gt_sem_seg='LoadAnnotations before the last transform loads it',
    gt_label='The data set has to have labels',
    instances='Set ann_file of the metric',
    scale_factor='Resize writes it, and PackDetInputs keeps what its '
    'meta_keys name',
    img_id='PackDetInputs keeps what its meta_keys name',
    ori_shape='PackDetInputs keeps what its meta_keys name')


def check_samples(part: Part, data: Data,
                  model: nn.Module | None) -> Iterator[Problem]:
    """Run a pipeline, and ask who would read in vain.

    Args:
        part (Part): Training, validation or test.
        data (Data): Data set of it.
        model (nn.Module, optional): Without wrappers.
    """
    dataset, kind = data.dataset, type(data.dataset)
    # Wrappers that mix pictures go on with what the pipeline makes.
    if not isinstance(dataset, BaseDataset) or data.mixed or not all(
            owner(kind, name) is BaseDataset
            for name in ('__getitem__', 'prepare_data')):
        return
    sample, faults = _make(dataset)
    said = error if not data.altered else warning
    if sample is None and len({(i, type(f)) for i, f in faults}) == 1:
        i, fault = faults[0]
        name = type(dataset.pipeline.transforms[i]).__name__
        if not name.startswith('Load'):  # of files, which have their rules
            yield said(f'{data.key}.pipeline.{i}', f'{name} fails on each of '
                       f'the pictures that were tried: {len(faults)} '
                       f'({type(fault).__name__}: {short(str(fault), 200)})')
    if sample is None or model is None or not _is_collated(part.loader):
        return
    if isinstance(sample, dict) and 'inputs' not in sample:
        if _reads_inputs(model):
            yield said(f'{data.key}.pipeline', 'its last transform leaves '
                       f'{first_few(sample)}, and no inputs, which the model '
                       'reads. End it with PackDetInputs, PackInputs or '
                       'PackSegInputs')
        return
    packed = sample.get('data_samples') if isinstance(sample, dict) else None
    if not isinstance(packed, BaseDataElement):
        return
    readers = _learners(model) if data.trained else [
        *_predictors(model), *_judges(part, data)]
    for reader, names in readers:
        for name in names:
            if not _has(packed, name):
                yield said(f'{data.key}.pipeline', f'{reader} reads {name}, '
                           f'and the samples have none. {ADVICE[name]}')


def _make(dataset: BaseDataset) -> tuple:
    """The first sample that can be made, or what was raised, and where."""
    faults = []
    for index in range(min(TRIED, len(dataset))):
        results = dataset.get_data_info(index)
        # Some keep what they have seen.
        for i, transform in enumerate(deepcopy(dataset.pipeline.transforms)):
            try:
                results = transform(results)
            except Exception as fault:
                faults.append((i, fault))
                break
            if results is None:  # another one is taken in its place
                break
        else:
            return results, faults
    return None, faults


def _is_collated(loader) -> bool:
    """Whether batches hold what samples hold."""
    function = getattr(loader, 'collate_fn', None)
    function = getattr(function, 'func', function)
    return str(getattr(function, '__module__', '')).partition('.')[0] in (
        *KNOWN, 'torch')


def _reads_inputs(model: nn.Module) -> bool:
    kinds = type(model), type(getattr(model, 'data_preprocessor', None))
    return all(map(is_known, kinds)) and (
        kinds[1] is not BaseDataPreprocessor) and all(
        owner(kinds[0], step) is BaseModel
        for step in ('train_step', 'val_step'))


def _has(sample: BaseDataElement, name: str) -> bool:
    if name in ('bboxes', 'masks'):
        # Other samples than MMDetection's of pictures have none.
        instances = sample.get('gt_instances')
        return instances is None or name in instances
    # A picture may have several labels, each with its score.
    return name in sample or name == 'gt_label' and 'gt_score' in sample


def _named(module, method: str) -> str | None:
    """The class that a known head has a method of."""
    kind = type(module)
    return owner(kind, method).__name__ if is_known(kind) and hasattr(
        kind, method) else None


def _learners(model: nn.Module) -> Iterator[tuple]:
    """Who learns from what."""
    for name in ('rpn_head', 'bbox_head'):
        head = getattr(model, name, None)
        if _named(head, 'loss_by_feat'):
            yield type(head).__name__, ['bboxes']
            break
    roi_head = getattr(model, 'roi_head', None)
    mask = getattr(roi_head, 'mask_head', None)
    mask = mask[0] if isinstance(mask, nn.ModuleList) and len(mask) else mask
    if is_known(type(roi_head)) and _named(
            mask, 'get_targets') == 'FCNMaskHead':
        yield type(mask).__name__, ['masks']
    head = getattr(model, 'decode_head', None)
    if _named(head, '_stack_batch_gt') == 'BaseDecodeHead':
        yield type(head).__name__, ['gt_sem_seg']
    head = getattr(model, 'head', None)
    if _named(head, '_get_loss') == 'ClsHead':
        yield type(head).__name__, ['gt_label']


def _predictors(model: nn.Module) -> Iterator[tuple]:
    """Who needs what to bring boxes to the size of the picture."""
    if not _reads_inputs(model):
        return
    head = getattr(model, 'bbox_head', None)
    # Others, as of corners, make boxes in a way of their own.
    if {_named(head, name) for name in (
            'predict_by_feat', '_predict_by_feat_single',
            '_bbox_post_process')} <= {'BaseDenseHead', 'RPNHead'}:
        yield type(head).__name__, ['scale_factor']
    head = getattr(getattr(model, 'roi_head', None), 'bbox_head', None)
    if _named(head, '_predict_by_feat_single') == 'BBoxHead':
        yield type(head).__name__, ['scale_factor']


def _judges(part: Part, data: Data) -> Iterator[tuple]:
    """Metrics, and what they compare with."""
    for metric, _ in part.metrics_of(data):
        name = _named(metric, 'process')
        if getattr(metric, 'format_only', False) or name is None:
            continue
        needs = dict(IoUMetric=['gt_sem_seg'], Accuracy=['gt_label'],
                     VOCMetric=['bboxes'],
                     CocoMetric=['img_id', 'ori_shape']).get(name, [])
        if name == 'CocoMetric' and getattr(
                metric, '_coco_api', metric) is None:
            needs = [*needs, 'instances']
        yield name, needs
