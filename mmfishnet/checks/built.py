# Copyright (c) mmfishnet authors. All rights reserved.
"""What a runner has built: its data sets, their transforms, its metrics.

A check asks these objects. A data set that cannot be built is built once more
without being filled (``lazy_init``), so that it says where it would look.
"""
from __future__ import annotations

import os
import os.path as osp
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO

from mmengine.dataset import BaseDataset
from mmengine.evaluator import Evaluator
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.registry import DATASETS, EVALUATOR
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..kinds import type_name

# Packages whose classes are known; what another's do is not.
KNOWN = ('mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg', 'mmfishnet')
# Who fills the list, and who reads a record of it: how files are read.
READERS = {
    ('CocoDataset', 'CocoDataset'): 'coco',
    ('CocoDataset', 'CocoPanopticDataset'): 'panoptic',
    ('CustomDataset', 'BaseDataset'): 'folders',
    ('XMLDataset', 'XMLDataset'): 'xml',
}
LISTED = 200_000  # records of a data set that are looked at
KEPT = ('img_path', 'seg_map_path', 'width', 'height', 'gt_label')


def is_known(cls: type) -> bool:
    """Whether a class is of a package whose classes are known here."""
    return cls.__module__.partition('.')[0] in KNOWN


def owner(cls: type, name: str) -> type:
    """The class that a method of ``cls`` is defined in."""
    return next((b for b in cls.__mro__ if name in vars(b)), cls)


@dataclass(eq=False)
class Data:
    """One data set, without what is wrapped around it.

    Args:
        part (str): 'train', 'val' or 'test'.
        key (str): Where it stands in the config.
        dataset (BaseDataset, optional): It; None if it cannot be built.
        mixed (list): Transforms of wrappers. Defaults to none.
        fault (Exception, optional): What it raised when it was filled.
            Defaults to None.
        name (str): Its class. Defaults to that of ``dataset``.

    Attributes:
        known (bool): Whether its labels mean what its classes say.
        kind (str, optional): 'coco', 'panoptic', 'folders', 'xml', or None for
            others: how its files are read.
        transforms (list): All transforms in their order.
        loaders (list): Those that read files; none if one is not known.
        altered (bool): Whether a transform that is not known may put right
            what is wrong.
    """

    part: str
    key: str
    dataset: BaseDataset | None
    mixed: list = field(default_factory=list)
    fault: Exception | None = None
    name: str = ''

    def __post_init__(self) -> None:
        kind = type(self.dataset)
        self.name = self.name or kind.__name__
        makers = [owner(kind, name)
                  for name in ('load_data_list', 'parse_data_info')]
        self.known = isinstance(self.dataset, BaseDataset) and is_known(
            makers[0])
        self.kind = READERS.get(tuple(m.__name__ for m in makers)) if all(
            map(is_known, makers)) else None
        self.trained = self.part == 'train'
        self.meta = getattr(self.dataset, 'metainfo', None) or {}
        self.ann_file = os.fspath(
            getattr(self.dataset, 'ann_file', None) or '')
        pipeline = getattr(self.dataset, 'pipeline', None)
        self.transforms = [*getattr(pipeline, 'transforms', ()), *self.mixed]
        unknown = [t for t in self.transforms
                   if not is_known(owner(type(t), 'transform'))]
        self.altered = bool(unknown)
        loaders = [t for t in self.transforms
                   if type(t).__name__.startswith('Load')]
        self.loaders = [] if any(t in unknown for t in loaders) else loaders

    @property
    def names(self) -> list[str] | None:
        """Names of its classes if they are a list of names, else None."""
        # Some data sets name them when they are filled.
        names = (getattr(self.dataset, 'metainfo', None) or {}).get('classes')
        if not isinstance(names, (list, tuple)) or not all(
                isinstance(name, str) for name in names):
            return None
        return list(names)

    def has(self, name: str) -> bool:
        """Whether a loading transform is switched so (``with_mask``)."""
        return any(getattr(t, name, False) for t in self.loaders)

    @cached_property
    def records(self) -> list[dict]:
        """What the data set lists, evenly spread if it is very much."""
        if self.fault or not isinstance(self.dataset, BaseDataset) or \
                not is_known(owner(type(self.dataset), '__len__')):
            return []
        total, found = len(self.dataset), []
        for i in range(0, total, max(1, -(-total // LISTED))):
            info = self.dataset.get_data_info(i)
            info = info if isinstance(info, dict) else {}
            found.append(dict({k: info.get(k) for k in KEPT}, index=i))
        return found

    @property
    def whole(self) -> bool:
        """Whether ``records`` are all that it has."""
        return len(self.records) == len(self.dataset)


@dataclass(eq=False)
class Part:
    """Training, validation or test.

    Attributes:
        name (str): 'train', 'val' or 'test'.
        data (list[Data]): Its data sets.
        loader (DataLoader, optional): None if it could not be built.
        metrics (list[tuple]): Each metric with its config, if it has one.
        prefixes (Sequence[str], optional): Of the data sets, where each has a
            metric of its own.
        faults (list[tuple]): Key, class and what it raised.
    """

    name: str
    data: list[Data] = field(default_factory=list)
    loader: DataLoader | None = None
    metrics: list[tuple] = field(default_factory=list)
    prefixes: Sequence[str] | None = None
    faults: list[tuple] = field(default_factory=list)

    def metrics_of(self, data: Data) -> list[tuple]:
        """The metrics that judge this data set and no other."""
        if self.prefixes is None:
            return self.metrics if len(self.data) == 1 else []
        if len(self.data) != len(self.metrics):
            return []
        return [self.metrics[self.data.index(data)]]

    def add_metrics(self, evaluator, cfg) -> None:
        """Take up an evaluator that was built of a config."""
        metrics = getattr(evaluator, 'metrics', None) or []
        if isinstance(cfg, dict) and 'metrics' in cfg:
            cfg = cfg['metrics']
        cfgs = list(cfg) if isinstance(cfg, (list, tuple)) else [cfg]
        self.metrics = [(metric, c if isinstance(c, dict) else {}) for
                        metric, c in zip(metrics, cfgs + [{}] * len(metrics))]
        self.prefixes = getattr(evaluator, 'dataset_prefixes', None)


def unwrap(dataset, part: str, key: str, mixed=()) -> Iterator[Data]:
    """The data sets inside ConcatDataset, RepeatDataset and their like.

    What a wrapper of one's own makes of those inside is not known.
    """
    known = is_known(owner(type(dataset), '__getitem__'))
    inner = getattr(dataset, 'datasets', None) if known else None
    if isinstance(inner, (list, tuple)) and inner:
        for i, item in enumerate(inner):
            yield from unwrap(item, part, f'{key}.datasets.{i}', mixed)
    elif known and not isinstance(dataset, BaseDataset) and hasattr(
            dataset, 'dataset'):
        pipeline = getattr(dataset, 'pipeline', None)
        more = pipeline if isinstance(pipeline, (list, tuple)) else ()
        yield from unwrap(dataset.dataset, part, f'{key}.dataset',
                          [*more, *mixed])
    else:
        yield Data(part, key, dataset, list(mixed))


def parts_of_runner(runner, names: Sequence[str]) -> list[Part]:
    """What a runner has built for training, validation or test."""
    parts = []
    for name in names:
        loop = getattr(runner, f'{name}_loop')
        part = Part(name, loader=getattr(loop, 'dataloader', None))
        if hasattr(part.loader, 'dataset'):
            part.data = list(unwrap(part.loader.dataset, name,
                                    f'{name}_dataloader.dataset'))
        part.add_metrics(getattr(loop, 'evaluator', None),
                         runner.cfg.get(f'{name}_evaluator'))
        parts += [part] if loop is not None else []
    return parts


def build_parts(cfg: dict, names: Sequence[str],
                scope: str | None) -> list[Part]:
    """Build what a runner would build of a config's data.

    Args:
        cfg (dict): Whole config.
        names (Sequence[str]): Of 'train', 'val' and 'test'.
        scope (str, optional): Package whose registries are asked first.

    Returns:
        list[Part]: What could not be built has its fault beside it.
    """
    parts = []
    with DATASETS.switch_scope_and_registry(scope), redirect_stdout(
            StringIO()):  # pycocotools speaks of indices
        for name in names:
            if cfg.get(f'{name}_dataloader') is None:
                continue
            parts.append(Part(name))
            _build_data(parts[-1], cfg[f'{name}_dataloader'])
            if name != 'train':
                _build_metrics(parts[-1], cfg.get(f'{name}_evaluator'))
    return parts


def _build_data(part: Part, cfg) -> None:
    key = f'{part.name}_dataloader'
    if not isinstance(cfg, dict):
        cfg = dict(dataset=cfg.dataset)
    dataset = cfg.get('dataset')
    try:
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        part.data = list(unwrap(dataset, part.name, f'{key}.dataset'))
    except Exception as fault:
        part.faults.append((f'{key}.dataset', type_name(dataset), fault))
        part.data = [_build_lazily(part.name, k, c)
                     for k, c in _leaves(dataset, f'{key}.dataset')]
        return
    loader = {k: v for k, v in cfg.items() if k != 'prefetch_factor'}
    loader.update(dataset=dataset, num_workers=0, persistent_workers=False)
    try:
        part.loader = Runner.build_dataloader(loader, seed=0)
    except Exception as fault:
        part.faults.append((key, 'the data loader', fault))


def _build_metrics(part: Part, cfg) -> None:
    try:
        evaluator = cfg
        if isinstance(cfg, dict) and 'metrics' in cfg:
            evaluator = EVALUATOR.build({'type': 'Evaluator', **cfg})
        elif cfg and not isinstance(cfg, Evaluator):
            evaluator = Evaluator(cfg)
        part.add_metrics(evaluator, cfg)
    except Exception as fault:
        part.faults.append((f'{part.name}_evaluator', type_name(cfg), fault))


def _leaves(cfg, key: str) -> Iterator[tuple[str, dict]]:
    if not isinstance(cfg, dict):
        return
    if isinstance(cfg.get('datasets'), (list, tuple)):
        for i, item in enumerate(cfg['datasets']):
            yield from _leaves(item, f'{key}.datasets.{i}')
    elif isinstance(cfg.get('dataset'), dict):
        yield from _leaves(cfg['dataset'], f'{key}.dataset')
    else:
        yield key, cfg


def _build_lazily(part: str, key: str, cfg: dict) -> Data:
    """Build a data set without filling it, then fill it."""
    data = None
    for more in ({}, {'pipeline': []}):
        try:
            data = data or Data(part, key, DATASETS.build(
                {**cfg, 'lazy_init': True, **more}))
        except Exception as fault:
            raised = fault
    if data is None:
        return Data(part, key, None, fault=raised, name=type_name(cfg))
    data.dataset.serialize_data = False  # which nothing at all cannot be
    try:
        data.dataset.full_init()
    except Exception as fault:
        data.fault = fault
    return data


def is_local(path, backend_args=None) -> bool:
    """Whether a file is on a disk of this machine."""
    try:
        return isinstance(
            get_file_backend(path, backend_args=backend_args), LocalBackend)
    except Exception:  # of a backend that is not known here
        return False


def missing_paths(data: Data) -> list[str]:
    """Files and folders that a data set names and that are not there."""
    backend = getattr(data.dataset, 'backend_args', None)
    prefixes = getattr(data.dataset, 'data_prefix', None)
    paths = [data.ann_file] + (
        list(prefixes.values()) if isinstance(prefixes, dict) else [])
    return [path for path in paths if isinstance(path, str) and path
            and is_local(path, backend) and not osp.exists(path)]
