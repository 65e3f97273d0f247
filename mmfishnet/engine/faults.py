# Copyright (c) mmfishnet authors. All rights reserved.
"""What upstream raises of a config that it cannot build, in words."""
from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from mmengine.registry import OPTIMIZERS, Registry

from ..checkpoints import CheckpointError
from ..checks import is_built
from ..kinds import find_class, kind_of, scope_of, type_name
from ..words import first_few, near, short
from .data_root import LOADERS
from .options import arguments

# Whose classes raise of a config; what another's raises is its own affair.
_KNOWN = {'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg', 'mmfishnet',
          'torch', 'torchvision', 'numpy'} | sys.stdlib_module_names


class ConfigError(ValueError):
    """A config of which nothing can be built; the message says where."""


@contextmanager
def config_faults(cfg: dict, runner=None) -> Iterator[None]:
    """Say in words where a config cannot be built.

    Args:
        cfg (dict): Whole config.
        runner (Runner, optional): What builds the rest, inside of ``checked``.
            Defaults to None, it is built here.

    Raises:
        ConfigError: In the place of what the known packages raise.
    """
    try:
        yield
    except (OSError, CheckpointError):
        raise
    except Exception as fault:
        begun = runner is not None and is_built(runner)
        words = None if begun else explain(fault, cfg)
        if words is None:
            raise
        raise ConfigError(words) from fault


def explain(fault: Exception, cfg: dict) -> str | None:
    """Where in a config a fault is from, and what is allowed there.

    Args:
        fault (Exception): It, as it was caught.
        cfg (dict): Whole config.

    Returns:
        str | None: A sentence; None if it is not of the config alone.
    """
    frames = [frame for frame, _ in walk_tb(fault.__traceback__)]
    names = [frame.f_globals.get('__name__', '') for frame in frames]
    packages = [name.partition('.')[0] for name in names]
    first = packages.index('mmengine') if 'mmengine' in packages else None
    if first is None or not _KNOWN.issuperset(packages[first:]) or (
            packages[-1] == 'mmfishnet' and not isinstance(fault, ValueError)
            and 'unexpected keyword argument' not in str(fault)):
        return None
    # Messages of the runner hold whole configs.
    raised = f'{type(fault).__name__}: {short(str(fault), 400)}'
    for frame, name in zip(reversed(frames), reversed(names)):
        values, where = frame.f_locals, frame.f_code.co_name
        if where == 'build_from_cfg' and name.startswith('mmengine.registry'):
            return _of_class(fault, raised, values, cfg)
        if where == 'build_dataloader':
            key = next((k for k in LOADERS if cfg.get(k) is not None and
                        cfg[k] == values.get('dataloader')), 'a dataloader')
            return f'{key} cannot be built ({raised})'
    return _unknown_optimizer(cfg) or f'the config cannot be run ({raised})'


def _unknown_optimizer(cfg: dict) -> str | None:
    """MMEngine asks for its signature before it looks whether there is one.
    """
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
    if isinstance(optimizer, dict) and 'type' in optimizer and find_class(
            OPTIMIZERS, optimizer, scope_of(cfg)) is None:
        return _unknown('optim_wrapper.optimizer', optimizer, OPTIMIZERS)
    return None


def _unknown(place: str, node: dict, registry: Registry) -> str:
    name, children = type_name(node), registry.children
    known = {*registry.module_dict}.union(
        *(child.module_dict for child in children.values()))
    scope = next((s for s, c in children.items() if name in c.module_dict),
                 None)  # of another package
    hint = (f" (did you mean '{scope}.{name}'?)" if scope
            else near(name, known))
    return (f'{place}.type: {kind_of(node)} is no {registry.name} that is '
            f'known{hint}; a class of your own is imported by custom_imports')


def _of_class(fault: Exception, raised: str, values: dict, cfg: dict) -> str:
    """Words for what was raised where a class was to be built."""
    node, cls, text = values.get('cfg'), values.get('obj_cls'), str(fault)
    if not isinstance(node, dict) or 'type' not in node:
        return f'{_place(cfg, node)} has no type: {short(node, 200)}'
    name, place = type_name(node), _place(cfg, node)
    if isinstance(cls, type) and '.exact.' in cls.__module__:
        name = cls.__base__.__name__  # in whose place it stands
    registry = values.get('registry')
    while getattr(registry, 'parent', None) is not None:
        registry = registry.parent
    if cls is None and isinstance(fault, KeyError) and registry is not None:
        return _unknown(place, node, registry)
    found = re.search("unexpected keyword argument '(.+?)'", text)
    if found and found[1] in node:
        taken = (isinstance(cls, type) and arguments(cls) or set()) - {'self'}
        return (f'{place}: {name} takes no {found[1]}{near(found[1], taken)}' +
                (f'. It takes {first_few(sorted(taken), 30)}'
                 if taken else ''))
    found = re.search(r'missing \d+ required .*?arguments?: (.+)', text)
    if found:
        return f'{place}: {name} needs {found[1]}'
    given = ', '.join(f'{key}={value!r}' for key, value in node.items()
                      if key != 'type' and isinstance(
                          value, (int, float, str)))
    return (f'{place}: {name} cannot be built' +
            (f' of {given}' if given else '') + f' ({raised})')


def _place(cfg, node) -> str:
    """The key of a dict in a config; its class where it is nowhere, or in
    several places."""
    cfg = dict(cfg.items())  # a Config is no dict
    found = {key for key, item in _dicts(cfg) if item == node}
    if len(found) != 1 and isinstance(node, dict):
        # The runner adds arguments to some.
        found = {key for key, item in _dicts(cfg) if 'type' in item
                 and all(node.get(k) == v for k, v in item.items())}
    if not found and 'Loop' in type_name(node):  # whose type is ours
        found = {key for key in ('train_cfg', 'val_cfg', 'test_cfg') if all(
            node.get(k) == v for k, v in (cfg.get(key) or {'': 1}).items()
            if k not in ('type', 'by_epoch'))}
    return found.pop() if len(found) == 1 else type_name(node)


def _dicts(node, key: str = '') -> Iterator[tuple[str, dict]]:
    if isinstance(node, dict):
        yield key, node
        items = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    else:
        return
    for name, item in items:
        yield from _dicts(item, f'{key}.{name}' if key else str(name))
