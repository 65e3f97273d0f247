# Copyright (c) mmfishnet authors. All rights reserved.
"""The same config on data that lie somewhere else."""
from __future__ import annotations

import os.path as osp

from mmengine.config import Config

from ..kinds import dicts_in

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')


def set_data_root(cfg: Config,
                  data_root: str,
                  source: str = '--data-root') -> str | None:
    """Point every data set and evaluator at another folder.

    The old data root is what all ``data_root`` of the config's data sets have
    in common. It is replaced in every path below it in dataloaders and
    evaluators, at any depth, but for the paths of results (``out...``).

    Args:
        cfg (Config): Config, changed in place.
        data_root (str): Folder of the same layout as the old one.
        source (str): What the user set, for messages. Defaults to
            '--data-root'.

    Returns:
        str: A line for the log; None if the data lie there already.

    Raises:
        FileNotFoundError: If ``data_root`` is not a folder.
        ValueError: If no data set of the config has a ``data_root``, or these
            have nothing in common.
    """
    if not osp.isdir(data_root):
        raise FileNotFoundError(
            f'{source}: the folder {data_root} does not exist '
            f'(looked for {osp.abspath(data_root)}).')
    parts = [cfg[key] for key in (*LOADERS, *EVALUATORS) if cfg.get(key)]
    # Each once: a config may use one dict in two places.
    nodes = {id(node): node for node in dicts_in(parts)}.values()
    old_roots = {osp.normpath(node['data_root']) for node in nodes
                 if node.get('data_root')}
    if not old_roots:
        raise ValueError(
            f'{source}: no data set of the config has a data_root that could '
            'be replaced; set their paths by --cfg-options.')
    try:
        old = osp.commonpath(old_roots)
    except ValueError:  # absolute and relative ones
        old = ''
    if old in ('', '/'):
        raise ValueError(
            f'{source}: the data roots of the config, {sorted(old_roots)}, '
            'are not in one folder; set them by --cfg-options.')

    def move(value):
        if not isinstance(value, str) or not value:
            return value
        path = osp.normpath(value)
        if path != old and not path.startswith(osp.join(old, '')):
            return value
        moved = osp.join(data_root, osp.relpath(path, old))
        # Some data sets add strings, so a final slash matters.
        return osp.normpath(moved) + ('/' if value.endswith('/') else '')

    for node in nodes:
        for key, value in node.items():
            if key.startswith('out'):
                continue
            if isinstance(value, (list, tuple)):
                node[key] = type(value)(map(move, value))
            elif isinstance(value, str):  # a lazy type stays one
                node[key] = move(value)
    if cfg.get('data_root'):
        cfg.data_root = move(cfg.data_root)
    if osp.normpath(data_root) == old:
        return None
    return f'{source}: data are read from {data_root} instead of {old}'
