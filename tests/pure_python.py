# Copyright (c) mmfishnet authors. All rights reserved.
"""Write a config in MMDetection's pure-Python style."""
from __future__ import annotations

from importlib import import_module

from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS as SAMPLERS
from mmengine.registry import (
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
)

from mmfishnet.kinds import find_class

REGISTRIES = (MODELS, DATASETS, TRANSFORMS, SAMPLERS, HOOKS, METRICS, LOOPS,
              PARAM_SCHEDULERS, OPTIMIZERS, VISBACKENDS, VISUALIZERS)


def exporter(cls: type) -> str:
    """The package from which a user would import a class."""
    parts = cls.__module__.split('.')
    names = ['.'.join(parts[:i]) for i in range(2, len(parts) + 1)]
    return next(name for name in names or parts if getattr(
        import_module(name), cls.__name__, None) is cls)


def write_pure(cfg: Config, path) -> None:
    """Write a config whose types are imported classes.

    As MMDetection's ``default_runtime`` of that style, it has no default
    scope. Norms and such, which are no models, keep their names.

    Args:
        cfg (Config): A text config, read.
        path (str | Path): The file.
    """
    imports = {}
    scope = cfg.default_scope

    def text(value) -> str:
        if isinstance(value, dict):
            items = []
            for key, item in value.items():
                cls = find(item) if key == 'type' else None
                if cls:
                    imports[cls.__name__] = exporter(cls)
                items.append(f'{key!r}: {cls.__name__ if cls else text(item)}')
            return '{' + ', '.join(items) + '}'
        if isinstance(value, (list, tuple)):
            inner = ', '.join(map(text, value))
            return f'[{inner}]' if isinstance(value, list) else (
                f'({inner}{"," if len(value) == 1 else ""})')
        return repr(value)

    def find(name):
        if isinstance(name, str) and name not in ('BN', 'GN', 'SGD'):
            for registry in REGISTRIES:
                if cls := find_class(registry, name, scope):
                    return cls
        return None

    lines = [
        f'{key} = {text(value)}' for key, value in cfg.to_dict().items()
        if key != 'default_scope'
    ]
    with open(path, 'w') as file:
        file.write('\n'.join([
            *(f'from {module} import {name}'
              for name, module in imports.items()), '',
            'default_scope = None', *lines, '']))
