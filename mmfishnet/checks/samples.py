# Copyright (c) mmfishnet authors. All rights reserved.
"""A sample as the pipeline makes it, against those that read it."""
from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from inspect import signature
from itertools import chain

from mmengine.dataset import BaseDataset
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..kinds import setting
from ..models.built import image_channels
from ..words import first_few, short
from .built import KNOWN, Data, Part, is_known, owner
from .problem import Problem, error, warning

TRIED = 3  # records of a data set
# What is read: who reads it, where in the model a known head stands, as far as
# it is the class of that name (or any) whose method is named. Others, as of
# corners, make boxes in a way of their own.
LEARNERS = (
    ('bboxes', 'rpn_head', {'loss_by_feat': None}),
    ('bboxes', 'bbox_head', {'loss_by_feat': None}),
    ('masks', 'roi_head.mask_head', {'get_targets': 'FCNMaskHead'}),
    ('gt_sem_seg', 'decode_head', {'_stack_batch_gt': 'BaseDecodeHead'}),
    ('gt_label', 'head', {'_get_loss': 'ClsHead'}))
PREDICTORS = (
    ('scale_factor', 'bbox_head', {
        'predict_by_feat': 'BaseDenseHead',
        '_predict_by_feat_single': 'BaseDenseHead',
        '_bbox_post_process': 'BaseDenseHead'}),
    ('scale_factor', 'roi_head.bbox_head', {
        '_predict_by_feat_single': 'BBoxHead'}))
METRICS = dict(IoUMetric=['gt_sem_seg'], Accuracy=['gt_label'],
               VOCMetric=['bboxes'], CocoMetric=['img_id', 'ori_shape'])
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
    if isinstance(sample, dict):
        yield from _check_channels(data, sample['inputs'], model, said)
    packed = sample.get('data_samples') if isinstance(sample, dict) else None
    if not isinstance(packed, BaseDataElement):
        return
    if data.trained:
        readers = _heads(model, LEARNERS)
    else:
        heads = PREDICTORS if _reads_inputs(model) else ()
        readers = chain(_heads(model, heads), _metrics(part, data))
    for reader, name in readers:
        if not _has(packed, name):
            yield said(f'{data.key}.pipeline', f'{reader} reads {name}, and '
                       f'the samples have none. {ADVICE[name]}')


def _check_channels(data: Data, inputs, model: nn.Module,
                    said) -> Iterator[Problem]:
    """A picture's channels against those that the backbone is told of."""
    backbone = getattr(model, 'backbone', None)
    if not _reads_inputs(model) or not is_known(type(backbone)) or (
            'in_channels' not in signature(type(backbone)).parameters):
        return
    try:
        reads = image_channels(backbone)
    except ValueError:  # it begins with something else
        return
    # One channel less the mean of three is three.
    if isinstance(inputs, Tensor) and inputs.dim() == 3 and len(
            inputs) not in (1, reads):
        yield said(f'{data.key}.pipeline', 'its pictures have '
                   f'{len(inputs)} channels, and {type(backbone).__name__} '
                   f'reads {reads}. Set model.backbone.in_channels, and mean '
                   'and std of the data_preprocessor, or color_type of '
                   'LoadImageFromFile')


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


def _heads(model: nn.Module, rows: tuple) -> Iterator[tuple[str, str]]:
    """Who of a model reads what."""
    for name, path, methods in rows:
        head, known = model, True
        for step in path.split('.'):
            head = getattr(head, step, None)
            if isinstance(head, nn.ModuleList) and len(head):
                head = head[0]
            known = known and is_known(type(head))
        if known and all(
                hasattr(head, method) and cls in (None, owner(
                    type(head), method).__name__)
                for method, cls in methods.items()):
            yield type(head).__name__, name


def _metrics(part: Part, data: Data) -> Iterator[tuple[str, str]]:
    """What metrics compare with."""
    for metric, cfg in part.metrics_of(data):
        cls = owner(type(metric), 'process')
        if getattr(metric, 'format_only', False) or not is_known(
                type(metric)):
            continue
        for name in METRICS.get(cls.__name__, ()):
            yield cls.__name__, name
        if cls.__name__ == 'CocoMetric' and 'type' in cfg and setting(
                cfg, type(metric), 'ann_file') is None:
            yield cls.__name__, 'instances'
