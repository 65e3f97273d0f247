# Copyright (c) mmfishnet authors. All rights reserved.
"""--cfg-options: settings of a config that are overridden."""
from __future__ import annotations

import ast
import os
import os.path as osp
from argparse import Action, ArgumentError

from mmengine.config import Config

from ..kinds import dicts_in

# What MMEngine's and the scopes' runners read at the top of a config.
_READ = {
    'activation_checkpointing', 'auto_scale_lr', 'compile',
    'custom_hooks', 'custom_imports', 'data_preprocessor', 'data_root',
    'default_hooks', 'default_scope', 'efficient_conv_bn_eval', 'env_cfg',
    'experiment_name', 'find_unused_parameters', 'from_scratch', 'launcher',
    'load_from', 'log_level', 'log_processor', 'model', 'model_wrapper_cfg',
    'optim_wrapper', 'param_scheduler', 'randomness', 'resume', 'runner_type',
    'strategy', 'sync_bn', 'test_cfg', 'test_dataloader', 'test_evaluator',
    'train_cfg', 'train_dataloader', 'tta_model', 'tta_pipeline', 'val_cfg',
    'val_dataloader', 'val_evaluator', 'visualizer', 'work_dir'
}


class OptionsAction(Action):
    """Take ``KEY=VALUE`` as it was typed: white space and commas stay."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for text in values:
            key, separator, value = text.partition('=')
            if not key or not separator:
                raise ArgumentError(
                    self, f'{text!r} is no KEY=VALUE. A value with white '
                    "space needs quotation marks, '" + text + "=...'")
            options[key] = value
        setattr(namespace, self.dest, options)


def merge_options(cfg: Config, options: dict[str, str]) -> list[str]:
    """Override settings of a config.

    Args:
        cfg (Config): Config, changed in place.
        options (dict[str, str]): Values as typed, by dotted key. Where the
            config has a text, they are one; else what Python and MMEngine
            read in them, see :func:`parse_value`.

    Returns:
        list[str]: Lines for the log.

    Raises:
        ValueError: If an option has no effect: nothing reads its name once
            the config is read.
    """
    notes, merged = [], {}
    for key, text in options.items():
        name = key.partition('.')[0]
        old = _get(cfg, key)
        value = text if isinstance(old, str) and not _quoted(
            text) and text != 'None' else parse_value(text)
        if name in _READ:
            merged[key] = value
        elif not isinstance(value, str) or not isinstance(old, str):
            raise ValueError(
                f'--cfg-options {key}={text} would have no effect: '
                + (f'{name} only serves to write the config, nothing reads '
                   'it afterwards' if name in cfg else
                   f'the config has no {name}, and nothing would read it') +
                '. Set the places that it is used in, as the full names of '
                'model, train_dataloader, train_cfg and so on.')
        else:
            count = _replace(cfg, old, value)
            if not count:
                raise ValueError(
                    f'--cfg-options {key}={text} would have no effect: '
                    f'nothing in the config is {old!r}, its value before.')
            merged[key] = value
            notes.append(f'{key}: {value} instead of {old}, in {count} '
                         f'place{"s" * (count > 1)} of the config')
    cfg.merge_from_dict(merged)
    return notes


def parse_value(text: str):
    """Read a value of ``--cfg-options``.

    Args:
        text (str): As typed.

    Returns:
        object: Numbers, True, False, None, lists, tuples and dicts as in
        Python; ``a,b`` and ``[a,b]`` as lists of these or of words, unless
        that looks like a path; all else is text.
    """
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    else:
        bare = isinstance(value, tuple) and not text.lstrip().startswith('(')
        return list(value) if bare else value
    lower = text.strip().lower()
    if lower in ('true', 'false', 'none'):
        return dict(true=True, false=False, none=None)[lower]
    inner = text.strip()
    brackets = inner[:1] + inner[-1:]
    if brackets in ('[]', '()'):
        inner = inner[1:-1]
    elif ',' not in text or os.sep in text or osp.exists(text):
        return text
    items = [parse_value(item.strip()) for item in _split(inner)]
    return tuple(items) if brackets == '()' else items


def _split(text: str) -> list[str]:
    """Split at the commas that are in no brackets."""
    parts, depth = [''], 0
    for char in text:
        depth += (char in '[(') - (char in '])')
        if char == ',' and depth == 0:
            parts.append('')
        else:
            parts[-1] += char
    return [part for part in parts if part.strip()]


def _quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in '\'"'


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
    for node in {id(node): node for node in dicts_in(parts)}.values():
        for key, value in node.items():
            if isinstance(value, str) and value == old:
                node[key] = new
                count += 1
    for name in _READ:
        if isinstance(cfg.get(name), str) and cfg[name] == old:
            cfg[name] = new
            count += 1
    return count
