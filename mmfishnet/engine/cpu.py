# Copyright (c) mmfishnet authors. All rights reserved.
"""What works on GPUs alone, where there is none."""
from __future__ import annotations

from mmengine.config import Config

from ..kinds import dicts_in, type_name

SYNCED = ('SyncBN', 'MMSyncBN', 'SyncBatchNorm')


def adapt_to_cpu(cfg: Config) -> list[str]:
    """Make a config run without a GPU, in one process or several.

    Args:
        cfg (Config): Config, changed in place.

    Returns:
        list[str]: Lines for the log.
    """
    notes = []
    if cfg.get('launcher', 'none') != 'none':
        # MMEngine passes the process's GPU unless told otherwise.
        if cfg.get('model_wrapper_cfg') is None:
            cfg.model_wrapper_cfg = dict(
                type='MMDistributedDataParallel',
                broadcast_buffers=False,
                find_unused_parameters=cfg.get('find_unused_parameters',
                                               False))
        cfg.model_wrapper_cfg.device_ids = None
        notes.append('no GPU: several processes share the cores of a host, '
                     'and one process that has them all learns more in the '
                     'same time')

    synced = bool(cfg.pop('sync_bn', None))
    for node in dicts_in(cfg.get('model')):
        if 'type' in node and type_name(node) in SYNCED:
            node['type'] = 'BN'
            synced = True
    if synced:
        notes.append('no GPU: SyncBN works on GPUs only, each process takes '
                     'the statistics of its own images')

    wrapper = cfg.get('optim_wrapper') or {}
    if type_name(wrapper) == 'AmpOptimWrapper':
        # MMEngine's refuses to run, and MMCV's operators know no bfloat16.
        wrapper['type'] = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
        notes.append('no GPU: mixed precision has no effect, training in '
                     'float32')
    return notes
