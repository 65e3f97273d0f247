# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

from mmengine.registry import MODELS


def model_class(cfg: dict, scope: str | None) -> type | None:
    """Find the class that a config of a model is built of.

    Args:
        cfg (dict): Config with ``type``, a name or a class.
        scope (str, optional): Default scope of names.

    Returns:
        type: The class, or None if there is none of that name.
    """
    kind = cfg.get('type')
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(scope) as registry:
            return registry.get(kind)
    return kind
