# Copyright (c) mmfishnet authors. All rights reserved.
"""--cfg-options: settings of a config that are overridden."""
from __future__ import annotations

import ast
import inspect
import re
from argparse import ArgumentError
from difflib import get_close_matches

from mmengine.config import Config, DictAction
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
)
from mmengine.runner import Runner

from ..kinds import dicts_in, find_class, type_name
from ..words import near

# What is read at the top of a config besides the runner's own arguments.
_READ = {*inspect.signature(Runner).parameters} | {
    'activation_checkpointing', 'auto_scale_lr', 'compile', 'custom_imports',
    'data_root', 'efficient_conv_bn_eval', 'find_unused_parameters',
    'from_scratch', 'log_level', 'model_wrapper_cfg', 'runner_type',
    'strategy', 'sync_bn', 'tta_model', 'tta_pipeline'
}
_REGISTRIES = (MODELS, DATASETS, TRANSFORMS, HOOKS, METRICS, OPTIMIZERS,
               PARAM_SCHEDULERS, DATA_SAMPLERS)


class OptionsAction(DictAction):
    """MMEngine's ``KEY=VALUE``, which leaves paths as they were typed.

    MMEngine drops white space from a value and splits it at commas, also
    where it is a path or a literal of Python.
    """

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        for text in values:
            if text.find('=') < 1:
                raise ArgumentError(
                    self, f'{text!r} is no KEY=VALUE. A value with white '
                    "space needs quotation marks, '" + text + "=...'")
        super().__call__(parser, namespace, values, option_string)

    @staticmethod
    def _parse_iterable(val: str):
        try:
            value = ast.literal_eval(val)
        except (ValueError, SyntaxError):
            balanced = all(
                val.count(a) == val.count(b) for a, b in ('()', '[]'))
            listed = val[:1] + val[-1:] in ('()', '[]')
            is_path = '/' in val or re.search(r'\.[A-Za-z]\w*$', val)
            is_phrase = ' ' in val and ',' not in val
            if not balanced or not listed and (is_path or is_phrase):
                return val
            return DictAction._parse_iterable(val)
        # `1,2` is a list, as MMEngine has it.
        bare = isinstance(value, tuple) and not val.lstrip().startswith('(')
        return list(value) if bare else value


def merge_options(cfg: Config, options: dict) -> list[str]:
    """Override settings of a config.

    Args:
        cfg (Config): Config, changed in place.
        options (dict): Values by dotted key, of :class:`OptionsAction`.

    Returns:
        list[str]: Lines for the log.

    Raises:
        ValueError: If an option has no effect, because nothing reads its name
            once the config is read, if it is all but a name that is known,
            or if the config has no such place.
    """
    for key, value in options.items():
        name = key.partition('.')[0]
        if name not in _READ:
            raise ValueError(
                f'--cfg-options {key}={value} would have no effect: '
                + (f'{name} only serves to write the config, nothing reads '
                   'it afterwards' if name in cfg else
                   f'the config has no {name}, and nothing would read it'
                   + near(name, {*cfg} | _READ)) +
                '. Set the places that it is used in, as the full names of '
                'model, train_dataloader, train_cfg and so on.')
        _check_names(cfg, key)
    lengths = _lengths(cfg)
    try:
        cfg.merge_from_dict(options)
    except (AttributeError, IndexError, KeyError, TypeError) as fault:
        raise ValueError(f'--cfg-options {" ".join(options)}: the config has '
                         f'no such place ({fault}).') from fault
    if any(key.partition('.')[0] == 'param_scheduler' for key in options):
        return []
    return _fit_schedulers(cfg, lengths)


def _check_names(cfg: Config, key: str) -> None:
    """Refuse a new name that is all but one beside it, or one that the class
    takes. Of others the class says itself that it does not take them."""
    top, *names = key.split('.')
    owner = cfg.get(top)
    for name in names:
        if isinstance(owner, (list, tuple)):
            here = name.isdigit() and int(name) < len(owner)
            owner = owner[int(name)] if here else None
            continue
        if not isinstance(owner, dict):
            return
        taken = _taken(owner, cfg.get('default_scope'))
        known = {*map(str, owner)} | taken
        meant = get_close_matches(name, known, 1, 0.75 if taken else 0.85)
        if name not in known and meant:
            raise ValueError(
                f'--cfg-options {key}: there is no {name} (did you mean '
                f'{meant[0]!r}?), but {", ".join(sorted(known))}.')
        owner = owner.get(name)


def _taken(owner: dict, scope: str | None) -> set[str]:
    """Arguments of the class that a dict of a config is for, if it has one
    and they can be told."""
    kinds = (find_class(registry, owner, scope) for registry in _REGISTRIES
             if 'type' in owner)
    return next((arguments(kind) or set() for kind in kinds if kind), set())


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
