# Copyright (c) mmfishnet authors. All rights reserved.
"""Training without pretrained weights."""
from __future__ import annotations

import re

from mmengine.config import Config
from mmengine.registry import MODELS

from ..checkpoints.pretrained import drop_pretrained
from ..kinds import find_class, setting, type_name

BATCH_NORMS = ('BN', 'BN1d', 'BN2d', 'BN3d', 'SyncBN', 'MMSyncBN',
               'BatchNorm2d', 'SyncBatchNorm')


def train_from_scratch(cfg: Config) -> str:
    """Train without pretrained weights.

    Nothing is loaded and nothing is frozen. Where the backbone's batch norms
    are fixed, which presumes trained ones, group norms (32 groups) take their
    place: the recipes that fix batch norms do so because an image or two a
    GPU are too few for its statistics.

    The config says so afterwards, by ``from_scratch=True``, and with it the
    checkpoints of the run: see :func:`follow_checkpoint`.

    Args:
        cfg (Config): Config, changed in place.

    Returns:
        str: A line for the log.

    Raises:
        ValueError: If the model has no backbone.
    """
    if 'backbone' not in cfg.model:
        raise ValueError(
            '--from-scratch changes model.backbone, and the config has none.')
    cfg.from_scratch = True
    backbone = cfg.model.backbone
    done = ['no pretrained weights']
    drop_pretrained(cfg.model)
    cls = find_class(MODELS, backbone, cfg.get('default_scope'))
    if setting(backbone, cls, 'frozen_stages', -1) >= 0:
        backbone.frozen_stages = -1
        done.append('no frozen stages')
    norm = setting(backbone, cls, 'norm_cfg', dict(type='BN')) or {}
    fixed = not norm.get('requires_grad', True) or setting(
        backbone, cls, 'norm_eval', False)
    if type_name(norm) in BATCH_NORMS and fixed:
        backbone.norm_cfg = dict(type='GN', num_groups=32, requires_grad=True)
        backbone.norm_eval = False
        done.append('trainable group norm (32 groups) instead of fixed '
                    'batch norm')
    return '--from-scratch: the backbone has ' + ', '.join(done)


def follow_checkpoint(cfg: Config, checkpoint: str, content) -> str | None:
    """Build what a checkpoint was trained as, from scratch or not.

    Args:
        cfg (Config): Config, changed in place.
        checkpoint (str): Name of the checkpoint.
        content: What it holds; of what is not MMEngine's nothing is known.

    Returns:
        str: A line for the log, or None if nothing was to be done.
    """
    meta = content.get('meta') if isinstance(content, dict) else None
    text = str(meta.get('cfg')) if isinstance(meta, dict) else ''
    if cfg.get('from_scratch') or not re.search(  # which is not executed
            '^from_scratch = True', text, re.MULTILINE):
        return None
    return f'{train_from_scratch(cfg)}, as {checkpoint} was trained'
