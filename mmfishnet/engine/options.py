# Copyright (c) mmfishnet authors. All rights reserved.
"""--cfg-options: settings of a config that are overridden."""
from __future__ import annotations

import ast
import inspect
import os
import os.path as osp
import re
from argparse import ArgumentError
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
)
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..kinds import dicts_in, find_class, type_name
from ..words import near

# What is read at the top of a config besides the runner's own arguments.
_READ = {*inspect.signature(Runner).parameters} | {
    'activation_checkpointing', 'auto_scale_lr', 'compile', 'custom_imports',
    'data_root', 'efficient_conv_bn_eval', 'find_unused_parameters',
    'from_scratch', 'log_level', 'model_wrapper_cfg', 'runner_type',
    'strategy', 'sync_bn', 'tta_model', 'tta_pipeline'
}
_REGISTRIES = (MODELS, DATASETS, TRANSFORMS, HOOKS, METRICS, LOOPS, OPTIMIZERS,
               PARAM_SCHEDULERS, DATA_SAMPLERS)


class OptionsAction(DictAction):
    """MMEngine's ``KEY=VALUE``, which leaves paths as they were typed.

    MMEngine drops white space from a value and splits it at commas, also
    where it is a path or a literal of Python.
    """

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for text in values:
            key, separator, value = text.partition('=')
            if not key or not separator:
                raise ArgumentError(
                    self, f'{text!r} is no KEY=VALUE. A value with white '
                    "space needs quotation marks, '" + text + "=...'")
            try:
                options[key] = _literal(value)
            except (ValueError, SyntaxError):
                if _is_as_typed(value):
                    options[key] = value
                    continue
                setattr(namespace, self.dest, options)
                super().__call__(parser, namespace, [text], option_string)
                options = getattr(namespace, self.dest)
        setattr(namespace, self.dest, options)


def _literal(text: str):
    """Read a literal of Python; ``1,2`` is a list, as MMEngine has it."""
    value = ast.literal_eval(text)
    bare = isinstance(value, tuple) and not text.lstrip().startswith('(')
    return list(value) if bare else value


def _is_as_typed(text: str) -> bool:
    """Whether MMEngine would change a text that is a path or a phrase."""
    inner = text.strip()
    if text.count('(') != text.count(')') or text.count('[') != text.count(
            ']'):
        return True
    listed = inner[:1] + inner[-1:] in ('()', '[]')
    is_path = os.sep in text or osp.exists(text) or re.search(
        r'\.[A-Za-z]\w*$', text)
    return not listed and bool(is_path or (',' not in text and ' ' in text))


def merge_options(cfg: Config, options: dict) -> list[str]:
    """Override settings of a config.

    Args:
        cfg (Config): Config, changed in place.
        options (dict): Values by dotted key, of :class:`OptionsAction`.

    Returns:
        list[str]: Lines for the log.

    Raises:
        ValueError: If an option has no effect: nothing reads its name once
            the config is read.
    """
    notes, merged = [], {}
    for key, value in options.items():
        name = key.partition('.')[0]
        old = _get(cfg, key)
        if name in _READ:
            if old is None:
                _check_new(cfg, key)
        elif not isinstance(value, str) or not isinstance(old, str):
            raise ValueError(
                f'--cfg-options {key}={value} would have no effect: '
                + (f'{name} only serves to write the config, nothing reads '
                   'it afterwards' if name in cfg else
                   f'the config has no {name}, and nothing would read it'
                   + near(name, {*cfg} | _READ)) +
                '. Set the places that it is used in, as the full names of '
                'model, train_dataloader, train_cfg and so on.')
        else:
            count = _replace(cfg, old, value)
            if not count:
                raise ValueError(
                    f'--cfg-options {key}={value} would have no effect: '
                    f'nothing in the config is {old!r}, its value before.')
            notes.append(f'{key}: {value} instead of {old}, in {count} '
                         f'place{"s" * (count > 1)} of the config')
        merged[key] = value
    lengths = _lengths(cfg)
    try:
        cfg.merge_from_dict(merged)
    except (AttributeError, IndexError, KeyError, TypeError) as fault:
        raise ValueError(f'--cfg-options {" ".join(merged)}: the config has '
                         f'no such place ({fault}).') from fault
    if not any(key.partition('.')[0] == 'param_scheduler' for key in merged):
        notes += _fit_schedulers(cfg, lengths)
    return notes


def _lengths(cfg: Config) -> list[int | None]:
    """Epochs and iterations of the training, where the config has them."""
    loop = cfg.get('train_cfg') or {}
    return [loop.get('max_epochs'), loop.get('max_iters')]


def _fit_schedulers(cfg: Config, lengths: list[int | None]) -> list[str]:
    """Let schedulers that ended with the training of before end with the
    new one; their milestones stay, and so does one that begins too late."""
    changes = []
    for old, new, by_epoch in zip(lengths, _lengths(cfg), (True, False)):
        if old in (None, new) or not isinstance(new, int):
            continue
        for scheduler in dicts_in(cfg.get('param_scheduler')):
            begin = scheduler.get('begin', 0)
            if scheduler.get('by_epoch', True) != by_epoch or begin >= new:
                continue
            # A cosine's period may be counted from where it begins.
            fits = {old - begin: new - begin, old: new}
            for key in ('end', 'T_max', 'total_steps'):
                if scheduler.get(key) in ([old] if key == 'end' else fits):
                    scheduler[key] = fits[scheduler[key]]
                    changes.append(
                        f'{type_name(scheduler)} {key}={scheduler[key]}')
    return [f'param_scheduler follows the new length of the training: '
            f'{", ".join(changes)}'] if changes else []


def _check_new(cfg: Config, key: str) -> None:
    """Refuse a name that is not in the config and that nothing reads.

    Either the class that it goes to does not take it, or it is all but the
    name beside it, or no source of the packages that the config's classes are
    from has the word.
    """
    parts = key.split('.')
    depth = next((i for i in range(1, len(parts))
                  if not _has(_get(cfg, '.'.join(parts[:i])), parts[i])), None)
    if depth is None:
        return
    place, name = '.'.join(parts[:depth]), parts[depth]
    owner = _get(cfg, place)
    if not isinstance(owner, dict) or name in ('type', '_delete_'):
        return
    cls, taken = _what_takes(cfg, place, owner)
    if taken:
        fits = name in taken
    else:
        fits = not get_close_matches(name, owner, cutoff=0.9) and (
            name.encode() in _words(_packages(cfg)))
    if fits:
        _check_below(key, cls, parts[depth + 1:])
        return
    raise ValueError(
        f'--cfg-options {key}: ' +
        (f'{cls.__name__} takes no {name}' if taken else
         f'{place} has no {name}, and nothing would read it') +
        near(name, {*owner} | taken) +
        f'. It has {", ".join(sorted(map(str, owner)))}.')


def _check_below(key: str, cls: type | None, names: list[str]) -> None:
    """Refuse a name inside of a new argument that the class that gets it
    does not read, where it reads one that is all but the same."""
    own = cls and {word.decode() for word in _words(tuple(
        {base.__module__ for base in inspect.getmro(cls)} - {'builtins'}))}
    for name in names if cls else ():
        near_by = get_close_matches(name, own, 1, 0.9)
        if near_by and name not in own:
            raise ValueError(f'--cfg-options {key}: {cls.__name__} reads no '
                             f'{name} (did you mean {near_by[0]!r}?)')


def _has(owner, name: str) -> bool:
    if isinstance(owner, (list, tuple)):
        return name.isdigit() and int(name) < len(owner)
    return isinstance(owner, dict) and name in owner


def _what_takes(cfg: Config, place: str,
                owner: dict) -> tuple[type | None, set[str]]:
    """The class that a dict of the config is for, and its arguments if they
    can be told."""
    if re.fullmatch(r'(train|val|test)_dataloader', place):
        return DataLoader, {*inspect.signature(DataLoader).parameters} | {
            'num_batch_per_epoch', 'disable_subprocess_warning'}
    if 'type' in owner:
        for registry in _REGISTRIES:
            cls = find_class(registry, owner, cfg.get('default_scope'))
            if cls:
                return cls, arguments(cls) or set()
    return None, set()


def arguments(cls: type) -> set[str] | None:
    """What a class can be built with; None if that cannot be told."""
    names = set()
    for base in inspect.getmro(cls):
        init = vars(base).get('__init__')
        if not inspect.isfunction(init):
            continue
        parameters = inspect.signature(init).parameters.values()
        names |= {p.name for p in parameters}
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            return names
    return None


def _packages(cfg: Config) -> tuple[str, ...]:
    """Packages that may read a config."""
    own = (cfg.get('custom_imports') or {}).get('imports') or ()
    own = [own] if isinstance(own, str) else own
    kinds = [
        find_class(registry, node, cfg.get('default_scope'))
        for node in dicts_in(cfg.to_dict()) if 'type' in node
        for registry in _REGISTRIES
    ]
    return tuple(
        sorted({
            name.partition('.')[0]
            for name in ('mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg',
                         'mmfishnet', *own,
                         *(kind.__module__ for kind in kinds if kind))
        }))


@cache
def _words(packages: tuple[str, ...]) -> frozenset[bytes]:
    """All words in the sources of some packages."""
    return frozenset(
        word for package in packages for path in _sources(package)
        for word in re.findall(rb'\w+', path.read_bytes()))


def _sources(package: str) -> Iterator[Path]:
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        yield from (path for path in Path(folder).rglob('*.py')
                    if '.mim' not in path.parts)
    # Of what is built into Python the origin is a word, as 'frozen'.
    if spec and not spec.submodule_search_locations and osp.isfile(
            spec.origin or ''):
        yield Path(spec.origin)


def _get(cfg, key: str):
    """What a config has at a dotted key, or None."""
    for part in key.split('.'):
        if isinstance(cfg, (list, tuple)) and part.isdigit():
            cfg = cfg[int(part)] if int(part) < len(cfg) else None
        elif isinstance(cfg, (dict, Config)):
            cfg = cfg.get(part)
        else:
            return None
    return cfg


def _replace(cfg: Config, old: str, new: str) -> int:
    """Replace a text in what a runner reads; gives how often."""
    count = 0
    parts = [cfg[name] for name in _READ if isinstance(
        cfg.get(name), (dict, list))]
    top = {name: cfg[name] for name in _READ if name in cfg}
    for node in {id(node): node for node in dicts_in(parts)}.values():
        for key, value in node.items():
            if isinstance(value, str) and value == old:
                node[key] = new
                count += 1
    for name, value in top.items():
        if isinstance(value, str) and value == old:
            cfg[name] = new
            count += 1
    return count
