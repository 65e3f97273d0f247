# Copyright (c) mmfishnet authors. All rights reserved.
"""Training without pretrained weights."""
from __future__ import annotations

import inspect
import re

from mmengine.config import Config

from ..checkpoints.pretrained import drop_pretrained
from .classes import model_class
from .resume import config_text

BATCH_NORMS = ('BN', 'BN1d', 'BN2d', 'BN3d', 'SyncBN', 'MMSyncBN')


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
    # What the backbone does where the config says nothing.
    settings = {
        **dict(frozen_stages=-1, norm_eval=False, norm_cfg=dict(type='BN')),
        **_defaults(model_class(backbone, cfg.get('default_scope'))),
        **backbone
    }
    if settings['frozen_stages'] >= 0:
        backbone.frozen_stages = -1
        done.append('no frozen stages')
    norm = settings['norm_cfg'] or {}
    fixed = not norm.get('requires_grad', True) or settings['norm_eval']
    if norm.get('type') in BATCH_NORMS and fixed:
        backbone.norm_cfg = dict(type='GN', num_groups=32, requires_grad=True)
        backbone.norm_eval = False
        done.append('trainable group norm (32 groups) instead of fixed '
                    'batch norm')
    return '--from-scratch: the backbone has ' + ', '.join(done)


def follow_checkpoint(cfg: Config, checkpoint: str) -> str | None:
    """Build what a checkpoint was trained as, from scratch or not.

    Args:
        cfg (Config): Config, changed in place.
        checkpoint (str): A checkpoint; of one that is no file here, or not
            of MMEngine, nothing is known.

    Returns:
        str: A line for the log, or None if nothing was to be done.
    """
    if cfg.get('from_scratch') or not was_from_scratch(checkpoint):
        return None
    return (f'{train_from_scratch(cfg)}, as {checkpoint} was trained')


def was_from_scratch(checkpoint: str) -> bool:
    """Whether a checkpoint is of a run that was started from scratch.

    Args:
        checkpoint (str): Path.

    Returns:
        bool: False, too, where it does not say.
    """
    text = config_text(checkpoint)
    return re.search(r'\bfrom_scratch = True', text) is not None


def _defaults(cls: type | None) -> dict:
    """Default values of a model's arguments, with their names."""
    parameters = inspect.signature(cls).parameters if cls else {}
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not parameter.empty
    }
