# Copyright (c) mmfishnet authors. All rights reserved.
"""All rules about the data and evaluators of a training or a test."""
from __future__ import annotations

import os.path as osp
from collections.abc import Iterator, Sequence

import mmengine
from mmengine.fileio import list_from_file
from torch import nn

from ..lengths import length_of
from ..words import counted, first_few, short
from .built import Data, Part, is_known, is_local, missing_paths, owner
from .coco import check_annotations
from .coco_file import CocoFile
from .evaluation import check_batches, check_best, check_topk
from .files import check_files, read_files
from .labels import check_known, check_names, check_order, labels_of
from .maps import check_maps, check_targets
from .masks import check_masks
from .model import TEXT, check_heads, class_count, class_head
from .problem import Problem, error, note, warning
from .samples import check_samples

COCO_METRICS = ('CocoMetric', 'CocoPanopticMetric')
# Transforms of MMDetection that move boxes, and leave masks where they were
# or refuse them.
MASKLESS = ('Mosaic', 'MixUp', 'RandomAffine', 'RandomCenterCropPad')


def check_parts(parts: Sequence[Part], model: nn.Module | None,
                hooks: Sequence, labels: bool = True) -> Iterator[Problem]:
    """Judge what was built.

    Args:
        parts (Sequence[Part]): Training, validation, test.
        model (nn.Module, optional): Without wrappers; on torch's meta device
            is enough.
        hooks (Sequence[Hook]): Of the runner, if there is one.
        labels (bool): Whether the model learns numbers of classes, as far as
            is known, and no words. Defaults to True.
    """
    files, bad = {}, set()
    for problem in guarded(_check_coco_files, parts, files):
        bad.add(problem.place if problem.level == 'error' else None)
        yield problem
    if labels and not any(hasattr(model, name) for name in TEXT):
        yield from guarded(_check_meanings, parts, files)
    head = class_head(model)
    for part in parts:
        for data in part.data:
            if data.dataset is not None:
                yield from guarded(check_names, data)
                yield from guarded(_check_data, part, data, files, model, head,
                                   data.ann_file in bad)
            yield from guarded(_check_evaluator, part, data, files)
        yield from guarded(_check_length, part)
        names = part.data[0].names if part.data else None
        yield from guarded(check_topk, part, class_count(head) or len(
            names or ()), head)
        yield from guarded(check_best, part, hooks)
        if part.name != 'train' and part.loader is not None:
            yield from guarded(check_batches, part, model)


def guarded(check, *args) -> Iterator[Problem]:
    """A mistake in a check must not stop a training that would run."""
    try:
        yield from check(*args) or ()
    except Exception as fault:
        yield note(check.__name__, 'this check did not come to its end '
                   f'({type(fault).__name__}: {fault})')


def check_faults(part: Part, problems: Sequence[Problem],
                 unknown: bool) -> Iterator[Problem]:
    """What could not be built, where no rule has said why."""
    said = {p.place for p in problems if p.level == 'error'}
    for data in part.data:
        if data.fault is None:
            continue
        missing = [p for p in missing_paths(data) if p not in said]
        for path in missing:
            yield error(data.key, f'{path!r} of {data.name} is not there '
                        f'(looked for {osp.abspath(path)}). Set data_root, '
                        'ann_file or data_prefix, or --data-root')
        if data.kind in ('coco', 'panoptic') and not data.ann_file:
            yield error(f'{data.key}.ann_file', 'it is not set; it should be '
                        "an annotation file in COCO's format")
        elif data.kind in ('coco', 'panoptic') and \
                'img' not in data.dataset.data_prefix:
            yield error(f'{data.key}.data_prefix', f"{data.name} needs the key"
                        " 'img', the folder of the images; it has "
                        f'{data.dataset.data_prefix}')
        elif not missing and not {data.key, data.ann_file} & said:
            yield from _name_fault(data.key, data.name, data.fault, unknown)
    for key, name, fault in part.faults:
        path = getattr(fault, 'filename', None)
        if 'dataset' in key and any(d.fault or d.key in said
                                    for d in part.data):
            continue
        if isinstance(path, str) and path not in said:
            what = 'is not there' if isinstance(
                fault, FileNotFoundError) else f'cannot be read: {fault}'
            yield error(key, f'{path!r} of {name} {what} (looked for '
                        f'{osp.abspath(path)})')
        elif path is None and not said:
            yield from _name_fault(key, name, fault, unknown)


def _name_fault(key: str, name: str, fault: Exception,
                unknown: bool) -> Iterator[Problem]:
    words = f'{type(fault).__name__}: {short(str(fault), 300)}'
    if isinstance(fault, KeyError) and 'registry' in str(fault):
        yield warning(key, f'{name} was not looked at: a class that it needs '
                      f'is not known here ({words})')
    elif isinstance(fault, TypeError) and 'unexpected keyword' in str(fault):
        yield error(key, f'{name} takes no such argument: '
                    f'{str(fault).rpartition("argument ")[2]}' +
                    ('. Names of classes are given as metainfo=dict(classes='
                     '...)' if 'dataset' in key else ''))
    elif unknown:
        # A loader's settings are the run's own affair.
        yield (error if '.' in key or 'evaluator' in key else warning)(
            key, f'{name} cannot be built ({words})')


def _file_of(data: Data) -> str:
    return data.ann_file if data.kind in ('coco', 'panoptic') else ''


def _scores_coco(metric) -> bool:
    """Whether predictions are compared as COCO does."""
    return any(b.__name__ in COCO_METRICS and is_known(b) for b in type(
        metric).__mro__) and not metric.format_only and is_known(
            owner(type(metric), 'compute_metrics'))


def _metric_file(metric, cfg: dict) -> str | None:
    """The file that a metric of COCO's kind reads, if it reads one."""
    return cfg.get('ann_file') if _scores_coco(metric) else None


def _uses_of_files(parts: Sequence[Part]) -> dict[str, dict]:
    """Annotation files, and what each is for.

    Returns:
        dict[str, dict]: By path: 'uses' as of :func:`check_annotations`,
        'masks' (who trains on them and who compares them), 'panoptic' and
        'backend_args'.
    """
    files = {}
    for part in parts:
        for data in filter(_file_of, part.data):
            learnt = data.trained and data.has('with_mask') and (
                data.kind == 'coco')
            wanted = [(
                data.ann_file, {'read', 'train' if data.trained else 'read'},
                dict(trained=f'{data.key} (with_mask=True)')
                if learnt else {})]
            for metric, cfg in part.metrics_of(data):
                path = cfg.get('ann_file') or data.ann_file
                if _scores_coco(metric) and isinstance(path, str):
                    kinds = {*getattr(metric, 'metrics', ())}
                    wanted.append((
                        path, {'eval', 'boxes' if kinds - {'segm'} else 'eval'
                               }, dict(scored=f'{part.name}_evaluator (metric '
                                       'segm)') if 'segm' in kinds else {}))
            for path, uses, masks in wanted:
                file = files.setdefault(path, dict(
                    uses=set(), masks={}, panoptic=data.kind == 'panoptic',
                    backend_args=getattr(data.dataset, 'backend_args', None)))
                file['uses'] |= uses
                file['masks'].update(masks)
    return files


def _check_coco_files(parts: Sequence[Part], files: dict
                      ) -> Iterator[Problem]:
    """Read and check each annotation file once; ``files`` takes them up."""
    for path, of in _uses_of_files(parts).items():
        backend = of['backend_args']
        local = is_local(path, backend)
        if local and not osp.exists(path):
            yield error(path, 'the annotation file is not there (looked for '
                        f'{osp.abspath(path)}). Set data_root or ann_file, or '
                        '--data-root')
            continue
        try:
            content = mmengine.load(
                path, file_format='json', backend_args=backend)
        except OSError as fault:
            yield error(path, f'it cannot be read: {fault.strerror}')
            continue
        except (ValueError, RecursionError) as fault:
            yield error(path, 'it is empty' if local and not osp.getsize(path)
                        else f'it is no JSON, or cut off: {fault}')
            continue
        files[path] = CocoFile(path, content, of['panoptic'])
        yield from check_annotations(files[path], of['uses'])
        masks = of['masks']
        if masks:
            yield from check_masks(
                files[path], masks.get('trained') or masks['scored'],
                'scored' in masks)


def _check_meanings(parts: Sequence[Part], files: dict) -> Iterator[Problem]:
    """Labels of the training set against those of the others."""
    meanings = []
    for part in parts:
        for data in part.data:
            if data.names is None:
                continue
            file = files.get(_file_of(data))
            paths = [_metric_file(m, c) for m, c in part.metrics_of(data)]
            for path in (data.ann_file, *paths):
                coco = files.get(path) if file else None
                if coco is not None and coco.categories:
                    meanings.append((path, labels_of(data.names, coco), 1))
            if not file and not data.fault:
                meanings.append((data.key, data.names, data.known))
            if data.trained:  # several may be learnt one beside the other
                meanings[1:] = [(*m[:2], False) for m in meanings[1:]]
    yield from check_order(list(dict.fromkeys(
        (place, tuple(names), certain) for place, names, certain in meanings)))


def _check_data(part: Part, data: Data, files: dict, model, head,
                said: bool) -> Iterator[Problem]:
    """One data set: what is left of it, its files, the heads, a sample."""
    coco = files.get(_file_of(data))
    evaluated = any(_scores_coco(m) for m, _ in part.metrics_of(data))
    if coco is not None and (coco.annotations or evaluated):
        yield from check_known(data, coco, evaluated)
    if data.fault is not None:
        if data.kind == 'folders':
            yield from _check_list(data)
        return
    if length_of(data.dataset) is None:
        return
    yield from _check_left(data, coco)
    if not len(data.dataset):
        return
    readings, problems = read_files(data)
    yield from problems
    yield from check_files(data, readings, said)
    yield from check_maps(data, readings, head)
    yield from check_targets(data, class_count(head))
    if model is not None:
        yield from check_heads(model, data, evaluated)
    movers = [type(t).__name__ for t in data.transforms
              if type(t).__name__ in MASKLESS and is_known(type(t))]
    if movers and data.has('with_mask'):
        yield error(
            data.key, f'{" and ".join(movers)} knows no masks, only boxes; '
            'with_mask=True cannot be used with it. Use CachedMosaic and '
            'CachedMixUp, or do without')
    yield from guarded(check_samples, part, data, model)


def _check_left(data: Data, coco: CocoFile | None) -> Iterator[Problem]:
    """Pictures that a data set is left with."""
    left, total = len(data.dataset), None
    filters = getattr(data.dataset, 'filter_cfg', None) or {}
    if coco is not None:
        total = len(coco.row)
    elif data.kind == 'xml':
        total = len(list_from_file(data.ann_file))
    where = data.ann_file or first_few(
        v for v in (getattr(data.dataset, 'data_prefix', None) or {}).values()
        if v)
    if not left:
        suffix = getattr(data.dataset, 'img_suffix', '')
        yield error(
            data.key, f'nothing is left of {where}' + (
                f': {counted(total, "picture")} listed there' if total else
                f', which holds no *{suffix}' if suffix else '') +
            f', classes are {short(data.names)}, filter_cfg={filters}. '
            'Correct the classes or the file, or lower min_size')
    elif total and left < total and filters and not data.dataset.test_mode:
        yield (warning if 10 * left <= 9 * total else note)(
            data.key, f'{left} of {total} pictures of {where} are used: the '
            'others have no object of the classes, or are too small '
            f'(filter_cfg={filters}). To keep those that show nothing, set '
            f'{data.key}.filter_cfg.filter_empty_gt=False')


def _check_list(data: Data) -> Iterator[Problem]:
    """A list of pictures and labels that MMPretrain cannot read."""
    path = data.ann_file
    if not path or not is_local(path) or not osp.isfile(path):
        return
    try:
        lines = [line.strip() for line in list_from_file(path)]
    except UnicodeDecodeError as fault:
        yield error(path, f'it is no text: {fault}')
        return
    if not lines:
        yield error(path, 'it is empty; it should have a line for each image')
    wrong = [i + 1 for i, line in enumerate(lines)
             if not line.rpartition(' ')[2].lstrip('-').isdecimal()
             or ' ' not in line]
    if wrong and getattr(data.dataset, 'with_label', True):
        yield error(
            path, f'{len(wrong)} of {len(lines)} lines ({first_few(wrong)}) '
            f'are not "FILE LABEL"; the first is {lines[wrong[0] - 1]!r}')


def _check_length(part: Part) -> Iterator[Problem]:
    """Whether there is a step at all."""
    loader = part.loader
    if part.name == 'train' and length_of(loader) == 0 and len(
            loader.dataset):
        yield error(
            'train_dataloader', f'{len(loader.dataset)} images are less than '
            f'a batch of {getattr(loader.batch_sampler, "batch_size", "")} in '
            'each process, and drop_last leaves them out: there is no step. '
            'Lower batch_size')


def _check_evaluator(part: Part, data: Data,
                     files: dict) -> Iterator[Problem]:
    """The file of an evaluator against that of its data set."""
    own = files.get(_file_of(data))
    for metric, cfg in part.metrics_of(data):
        other = files.get(_metric_file(metric, cfg))
        if own is None or other is None:
            continue
        key, path = f'{part.name}_evaluator.ann_file', other.path
        if not data.fault and len(data.dataset) < len(own.row):
            yield warning(
                key, f'{data.key} has {len(data.dataset)} of the '
                f'{len(own.row)} images of {own.path}, and {path} is evaluated'
                ' as a whole: the others count as missed')
        mine, theirs = set(own.row), set(other.row)
        if mine != theirs:
            yield error(
                key, f'it reads {path} with {len(theirs)} images, and '
                f'{data.key} reads {own.path} with {len(mine)}: '
                f'{len(theirs - mine)} images would count as missed and '
                f'{len(mine - theirs)} have no annotations in the evaluation. '
                'Both should read the same file')
