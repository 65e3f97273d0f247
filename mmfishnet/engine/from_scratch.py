# Copyright (c) mmfishnet authors. All rights reserved.
"""Training without pretrained weights."""
from __future__ import annotations

from mmengine.config import Config

from ..checkpoints.pretrained import drop_pretrained

BATCH_NORMS = ('BN', 'BN1d', 'BN2d', 'BN3d', 'SyncBN', 'MMSyncBN')


def train_from_scratch(cfg: Config) -> str:
    """Train without pretrained weights.

    Nothing is loaded and nothing is frozen. Where the backbone's batch norms
    are fixed, which presumes trained ones, group norms (32 groups) take their
    place: the recipes that fix batch norms do so because an image or two a
    GPU are too few for its statistics.

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
    backbone = cfg.model.backbone
    done = ['no pretrained weights']
    drop_pretrained(cfg.model)
    if backbone.get('frozen_stages', -1) >= 0:
        backbone.frozen_stages = -1
        done.append('no frozen stages')
    norm = backbone.get('norm_cfg', {})
    fixed = not norm.get('requires_grad', True) or backbone.get('norm_eval')
    if norm.get('type') in BATCH_NORMS and fixed:
        backbone.norm_cfg = dict(type='GN', num_groups=32, requires_grad=True)
        backbone.norm_eval = False
        done.append('trainable group norm (32 groups) instead of fixed '
                    'batch norm')
    return '--from-scratch: the backbone has ' + ', '.join(done)
