# Copyright (c) mmfishnet authors. All rights reserved.
"""Several processes without a GPU."""
from __future__ import annotations

from mmengine.config import Config

from ..kinds import dicts_in, type_name


def adapt_to_cpu(cfg: Config) -> str | None:
    """Make a config run in several processes without GPUs.

    Args:
        cfg (Config): Config, changed in place.

    Returns:
        str: A line for the log, or None.
    """
    # MMEngine passes the process's GPU unless told otherwise.
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False))
    cfg.model_wrapper_cfg.device_ids = None

    synced = bool(cfg.pop('sync_bn', None))
    for node in dicts_in(cfg.model):
        if type_name(node) in ('SyncBN', 'MMSyncBN', 'SyncBatchNorm'):
            node['type'] = 'BN'
            synced = True
    if synced:
        return ('no GPU: SyncBN works on GPUs only, each process takes '
                'the statistics of its own images')
    return None
