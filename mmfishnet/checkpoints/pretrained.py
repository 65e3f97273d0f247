# Copyright (c) mmfishnet authors. All rights reserved.
"""Pretrained weights that a config asks for."""
from __future__ import annotations

import os.path as osp
import re
from collections import defaultdict
from collections.abc import Iterator

from ..kinds import type_name
from .published import SCHEME, SOURCES, DownloadError, find_published

# 'https://', 'torchvision://', 's3:', 'cluster:s3://', but not a drive, 'C:'
_SCHEME = re.compile(r'[\w.+-]{2,}:')


def find_pretrained(model_cfg: dict) -> Iterator[dict]:
    """Find the ``init_cfg`` of type 'Pretrained' in a model config.

    Args:
        model_cfg (dict): Config of a model, with ``init_cfg`` (a dict or a
            list of them) at any depth.

    Yields:
        dict: Each such ``init_cfg``.
    """
    return (cfg for *_, cfg, _ in _walk(model_cfg))


def drop_pretrained(model_cfg: dict, only_missing: bool = False) -> list[str]:
    """Remove the ``init_cfg`` of type 'Pretrained' from a model config.

    Args:
        model_cfg (dict): Config of a model, changed in place.
        only_missing (bool): Whether to remove those alone whose file is not
            there, published ones that were not fetched yet among them.
            Defaults to False.

    Returns:
        list[str]: The checkpoints that were removed.
    """
    dropped = []
    for owner, key, cfg, _ in list(_walk(model_cfg)):
        checkpoint = cfg['checkpoint']
        if only_missing and (
                find_published(checkpoint, fetch=False)
                if checkpoint.startswith(SCHEME)
                else not is_missing(checkpoint)):
            continue
        dropped.append(checkpoint)
        owner[key] = [item for item in owner[key] if item is not cfg
                      ] if isinstance(owner[key], (list, tuple)) else None
    return dropped


def require_pretrained(model_cfg: dict) -> None:
    """Check that the pretrained weights of a model config are there.

    Without this the missing file is noticed only after the data set has been
    read. Published weights (``mmfishnet://fishnet150``) are fetched.

    Args:
        model_cfg (dict): Config of a model. Checkpoints with another scheme
            (``https://``, ``torchvision://``, ...) are left alone.

    Raises:
        CheckpointError: If nothing of a name was published.
        DownloadError: If published weights could not be fetched.
        FileNotFoundError: If a local file is missing. They say how to get it
            and how to do without.
    """
    wanted = defaultdict(list)
    for *_, cfg, path in _walk(model_cfg):
        wanted[cfg['checkpoint']].append(path)
    for checkpoint, paths in wanted.items():
        if is_missing(checkpoint):
            raise FileNotFoundError(
                f'the pretrained weights {checkpoint} are not there (looked '
                f'for {osp.abspath(osp.expanduser(checkpoint))}). Either\n'
                f'  - {_how_to_get(checkpoint)}, or\n{_ways_out(paths)}')
        if checkpoint.startswith(SCHEME):
            try:
                find_published(checkpoint)
            except DownloadError as error:
                raise DownloadError(
                    f'{error} Or\n{_ways_out(paths)}') from error


def _how_to_get(checkpoint: str) -> str:
    trained = re.search(r'work_dirs/(\w+)/', checkpoint)
    if trained:
        return f'train {trained[1]} first, which leaves them there'
    name = re.match(r'(fishnet\d+)?', osp.basename(checkpoint).lower())[0]
    if name in SOURCES:
        return (f'name the published ones, {SCHEME}{name}, or run `python '
                f'tools/get_weights.py {name}`, which puts them there')
    return 'put the file there'


def _ways_out(paths: list[str]) -> str:
    named = ' '.join(f'{path}.checkpoint=FILE' for path in paths)
    # Of a list of them, one cannot be taken away.
    dropped = ' '.join(f'{path.rstrip(".0123456789")}=None' for path in paths)
    return ("  - name a file that you have, the authors' perhaps, by "
            f'`--cfg-options {named}`, or\n'
            '  - train without: `--from-scratch` (no pretrained weights, '
            'nothing frozen, group norm where batch norm was frozen), or '
            f'`--cfg-options {dropped}` to change nothing else.')


def is_missing(checkpoint: str) -> bool:
    """Whether a checkpoint is a path, not a URL, at which there is no file."""
    return not has_scheme(checkpoint) and not osp.isfile(
        osp.expanduser(checkpoint))


def has_scheme(checkpoint: str) -> bool:
    """Whether a checkpoint is no path of a file, but something like a URL."""
    return _SCHEME.match(checkpoint) is not None


def _walk(cfg, path: str = 'model') -> Iterator[tuple[dict, str, dict, str]]:
    """Find (owner, key, init_cfg, path): ``owner[key]`` is or holds the
    ``init_cfg``, which ``--cfg-options`` knows by its path."""
    items = (cfg.items() if isinstance(cfg, dict) else
             enumerate(cfg) if isinstance(cfg, (list, tuple)) else ())
    for key, value in items:
        below = f'{path}.{key}'
        if key != 'init_cfg':
            yield from _walk(value, below)
        elif isinstance(value, (list, tuple)):
            yield from ((cfg, key, item, f'{below}.{i}')
                        for i, item in enumerate(value) if is_pretrained(item))
        elif is_pretrained(value):
            yield cfg, key, value, below


def is_pretrained(init_cfg) -> bool:
    """Whether the config of one initialiser is of type 'Pretrained'."""
    return (isinstance(init_cfg, dict) and 'checkpoint' in init_cfg
            and type_name(init_cfg) in ('Pretrained', 'PretrainedInit'))
