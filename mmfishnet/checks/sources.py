# Copyright (c) mmfishnet authors. All rights reserved.
"""The data sets and metrics of a config, and how their classes read files.

A data set is known by the class that loads its list, so one's own subclass of
``CocoDataset`` is looked at as well, and one that reads its files itself is
not: what it needs is not known here.
"""
from __future__ import annotations

import gc
import inspect
import json
import os.path as osp
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from mmengine.registry import DATASETS, METRICS, Registry

from ..kinds import dicts_in

# The class whose load_data_list is used: how its files are checked.
READERS = {
    'CocoDataset': 'coco',
    'CustomDataset': 'folders',
    'BaseSegDataset': 'maps',
}


def find_class(registry: Registry, kind, scope: str | None) -> type | None:
    """Find the class that a config's ``type`` names.

    Args:
        registry (Registry): Where to look.
        kind: A name, with or without scope, or the class.
        scope (str, optional): ``default_scope`` of the config.

    Returns:
        type | None: None if it is not known.
    """
    if not isinstance(kind, str):
        return kind if isinstance(kind, type) else None
    try:
        with registry.switch_scope_and_registry(scope) as registry:
            found = registry.get(kind)
    except ImportError:  # of a package that is not installed
        return None
    return found if isinstance(found, type) else None


def setting(cfg: dict, cls: type | None, name: str, default=None):
    """Tell the value that an argument will have.

    Args:
        cfg (dict): Arguments that are given.
        cls (type, optional): Class that gets them.
        name (str): Argument.
        default: What to return where neither says. Defaults to None.

    Returns:
        Any: Of ``cfg``, else the default in the signature of ``cls`` or of
        the next of its bases that has this argument.
    """
    if name in cfg:
        return cfg[name]
    for base in inspect.getmro(cls) if cls else ():
        init = vars(base).get('__init__')
        parameter = init and inspect.signature(init).parameters.get(name)
        if parameter and parameter.default is not parameter.empty:
            return parameter.default
    return default


def type_name(cfg: dict) -> str:
    """Name of a config's ``type``, without scope."""
    kind = cfg.get('type')
    return str(getattr(kind, '__name__', kind)).split('.')[-1]


@dataclass(eq=False)
class Source:
    """One data set of a config.

    Attributes:
        part (str): 'train', 'val' or 'test'.
        key (str): Where it stands in the config.
        cfg (dict): Its config.
        cls (type, optional): Its class; None if that is not known.
        metrics (list[dict]): Metrics of the same part.
    """

    part: str
    key: str
    cfg: dict
    cls: type | None
    metrics: list

    @cached_property
    def kind(self) -> str | None:
        """'coco', 'panoptic', 'folders', 'maps', or None if unknown."""
        names = [base.__name__ for base in inspect.getmro(self.cls)
                 ] if self.cls else []
        if 'CocoPanopticDataset' in names:
            return 'panoptic'
        for base in inspect.getmro(self.cls) if self.cls else ():
            if 'load_data_list' in vars(base):
                return READERS.get(base.__name__)
        return None

    @property
    def name(self) -> str:
        return type_name(self.cfg)

    def get(self, name: str, default=None):
        """Value of an argument, see :func:`setting`."""
        return setting(self.cfg, self.cls, name, default)

    def join(self, path) -> str | None:
        """A path of the data set below its ``data_root``."""
        if not isinstance(path, str):
            return None
        # As MMEngine's data sets do, which takes a URL for absolute too.
        if osp.isabs(path) or is_remote(path):
            return path
        return osp.join(self.get('data_root') or '', path)

    @property
    def ann_file(self) -> str | None:
        path = self.get('ann_file')
        return self.join(path) if path else None

    def prefix(self, name: str) -> str | None:
        """A folder of ``data_prefix``; None if it has no such key."""
        prefixes = self.get('data_prefix')
        if isinstance(prefixes, str) and name == 'img_path':
            return self.join(prefixes)
        if not isinstance(prefixes, dict) or name not in prefixes:
            return None
        return self.join(prefixes[name])

    @property
    def metainfo(self) -> dict:
        given = self.cfg.get('metainfo')
        return given if isinstance(given, dict) else {}

    @property
    def classes(self):
        """Names of the classes as the data set will see them, or None."""
        default = getattr(self.cls, 'METAINFO', None) or {}
        given = self.metainfo.get('classes', default.get('classes'))
        if isinstance(given, str) and osp.isfile(given):
            with open(given, errors='replace') as file:
                return file.read().splitlines()
        return given

    @property
    def good_classes(self) -> list[str] | None:
        """Names of the classes, or None if they are not a list of names."""
        names = self.classes
        if not isinstance(names, (list, tuple)) or not all(
                isinstance(name, str) for name in names):
            return None
        return list(names)

    @property
    def transforms(self) -> list[dict]:
        return [t for t in dicts_in(self.cfg.get('pipeline')) if 'type' in t]

    @property
    def trained(self) -> bool:
        return self.part == 'train'

    @property
    def loads_masks(self) -> bool:
        return any(t.get('with_mask') for t in self.transforms
                   if type_name(t).startswith('Load'))

    @property
    def evaluated(self) -> bool:
        """Whether predictions are compared with the annotations."""
        return bool(self.metrics) and not all(
            m.get('format_only') for m in self.metrics)


def find_sources(cfg: dict,
                 parts=('train', 'val', 'test')) -> Iterator[Source]:
    """Find the data sets of a config, those inside wrappers too.

    Args:
        cfg (dict): Config.
        parts (Sequence[str]): Which of 'train', 'val' and 'test'. Defaults to
            all.

    Yields:
        Source: Each data set; the same one in two parts is given once.
    """
    scope = cfg.get('default_scope')
    seen = []
    for part in parts:
        loader = cfg.get(f'{part}_dataloader')
        if not isinstance(loader, dict):
            continue
        metrics = find_metrics(cfg.get(f'{part}_evaluator'))
        for key, dataset in _leaves(
                loader.get('dataset'), f'{part}_dataloader.dataset'):
            if (dataset, metrics) in seen:
                continue
            seen.append((dataset, metrics))
            cls = find_class(DATASETS, dataset.get('type'), scope)
            yield Source(part, key, dataset, cls, metrics)


def _leaves(dataset, key: str) -> Iterator[tuple[str, dict]]:
    """The data sets inside ConcatDataset, RepeatDataset and their like."""
    if not isinstance(dataset, dict):
        return
    inner = dataset.get('datasets')
    if isinstance(inner, (list, tuple)):
        for i, item in enumerate(inner):
            yield from _leaves(item, f'{key}.datasets.{i}')
    elif isinstance(dataset.get('dataset'), dict):
        yield from _leaves(dataset['dataset'], f'{key}.dataset')
    else:
        yield key, dataset


def find_metrics(evaluator) -> list[dict]:
    """The metrics of a config's evaluator.

    Args:
        evaluator: A metric, a list of them, or a dict with ``metrics``.

    Returns:
        list[dict]: Their configs.
    """
    if isinstance(evaluator, dict) and 'metrics' in evaluator:
        evaluator = evaluator['metrics']
    if not isinstance(evaluator, (list, tuple)):
        evaluator = [evaluator]
    return [metric for metric in evaluator if isinstance(metric, dict)]


def metric_names(metric: dict, scope: str | None) -> list[str]:
    """Names of a metric's class and of its bases."""
    cls = find_class(METRICS, metric.get('type'), scope)
    return [base.__name__ for base in inspect.getmro(cls)] if cls else []


def is_remote(path: str) -> bool:
    """Whether a path needs one of MMEngine's storage backends."""
    return '://' in path or path.startswith('s3:')


def load_json(path: str):
    """Read a JSON file, without the garbage collector's visits.

    Args:
        path (str): File.

    Returns:
        Any: What it holds.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON; UnicodeDecodeError is one.
        RecursionError: If it is nested too deep.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    finally:
        if enabled:
            gc.enable()
