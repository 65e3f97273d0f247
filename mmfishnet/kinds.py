# Copyright (c) mmfishnet authors. All rights reserved.
"""What a config's ``type`` is: the one place that knows.

A ``type`` is written as a name (``'FishNet'``), with a scope
(``'mmfishnet.FishNet'``), as the path of a class (which MMEngine writes when
it dumps a pure-Python config), as the class itself, or lazily, where a
pure-Python config imports it. Whoever asks what something in a config is asks
here, and so treats all five alike.
"""
from __future__ import annotations

import inspect
from collections.abc import Iterator

from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.registry import MODELS, Registry

# Packages whose models the tools know to test, to draw and to export.
SCOPES = ('mmdet', 'mmpretrain', 'mmseg')


def kind_of(cfg):
    """What a config's ``type`` is, with lazy objects built.

    Args:
        cfg (dict | str | type): Config with ``type``, or a type itself.

    Returns:
        str | Callable | None: A name, or what is to be called; None if the
        config has no type.
    """
    kind = cfg.get('type') if isinstance(cfg, dict) else cfg
    return kind.build() if isinstance(kind, (LazyAttr, LazyObject)) else kind


def type_name(cfg) -> str:
    """Name of a config's ``type`` without scope, for comparing and messages.

    Args:
        cfg (dict | str | type): Config with ``type``, or a type itself.
    """
    kind = kind_of(cfg)
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


def find_class(registry: Registry, cfg, scope: str | None = None
               ) -> type | None:
    """Find the class that a config is built of.

    Args:
        registry (Registry): Where names are looked up, a root registry of
            MMEngine.
        cfg (dict | str | type): Config with ``type``, or a type itself.
        scope (str, optional): ``default_scope`` of the config. Defaults to
            None.

    Returns:
        type | None: None if nothing of that name is known, or if it is no
        class.
    """
    kind = kind_of(cfg)
    if isinstance(kind, str):
        try:
            with registry.switch_scope_and_registry(scope) as registry:
                kind = registry.get(kind)
        except (ImportError, RuntimeError):  # MMEngine's for unknown names
            return None
    return kind if inspect.isclass(kind) else None


def is_a(cfg, name: str, registry: Registry, scope: str | None = None) -> bool:
    """Whether a config is built of a class of that name, or of one below it.

    Args:
        cfg (dict | str | type): Config with ``type``, or a type itself.
        name (str): Name of a class, without scope.
        registry (Registry): Where names are looked up.
        scope (str, optional): ``default_scope``. Defaults to None.
    """
    cls = find_class(registry, cfg, scope)
    if cls is None:
        return type_name(cfg) == name
    return any(base.__name__ == name for base in inspect.getmro(cls))


def setting(cfg: dict, cls: type | None, name: str, default=None):
    """Tell the value that an argument will have.

    Args:
        cfg (dict): Arguments that are given.
        cls (type, optional): Class that gets them.
        name (str): Argument.
        default: What to return where neither says. Defaults to None.

    Returns:
        Any: Of ``cfg``, else the default in the signature of ``cls`` or of
        the next of its bases that has this argument.
    """
    if name in cfg:
        return cfg[name]
    for base in inspect.getmro(cls) if cls else ():
        init = vars(base).get('__init__')
        parameter = init and inspect.signature(init).parameters.get(name)
        if parameter and parameter.default is not parameter.empty:
            return parameter.default
    return default


def scope_of(cfg: dict) -> str | None:
    """Package whose runner, models and hooks a config is for.

    Args:
        cfg (dict): Whole config.

    Returns:
        str | None: ``default_scope``, or where that is not set (as in
        MMDetection's pure-Python configs) the first of ``SCOPES`` that the
        model's class, or one it derives from, is defined in; None if there
        is none.
    """
    scope = cfg.get('default_scope')
    if scope is not None or not isinstance(cfg.get('model'), dict):
        return scope
    for base in inspect.getmro(find_class(MODELS, cfg['model']) or object):
        package = base.__module__.partition('.')[0]
        if package in SCOPES:
            return package
    return None


def dicts_in(node) -> Iterator[dict]:
    """Find every dict of a config, at any depth.

    Args:
        node: Dict, list, tuple or anything else, which holds none.

    Yields:
        dict: ``node`` itself if it is one, then those inside.
    """
    if isinstance(node, dict):
        yield node
        node = node.values()
    elif not isinstance(node, (list, tuple)):
        return
    for child in node:
        yield from dicts_in(child)
