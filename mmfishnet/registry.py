# Copyright (c) mmfishnet authors. All rights reserved.
"""mmfishnet's nodes in MMEngine's registry tree.

MMEngine imports ``<scope>.registry`` when it meets ``type='<scope>.Name'``,
so ``type='mmfishnet.FishNet'`` works in any OpenMMLab config without
``custom_imports``. What users name without a scope (``type='FishNet'``) is
registered in MMEngine's root as well, see :func:`register`.
"""
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOG_PROCESSORS as MMENGINE_LOG_PROCESSORS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import VISUALIZERS as MMENGINE_VISUALIZERS
from mmengine.registry import Registry

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope='mmfishnet',
    locations=['mmfishnet.models'])
HOOKS = Registry(
    'hook',
    parent=MMENGINE_HOOKS,
    scope='mmfishnet',
    locations=['mmfishnet.engine'])
LOG_PROCESSORS = Registry(
    'log processor',
    parent=MMENGINE_LOG_PROCESSORS,
    scope='mmfishnet',
    locations=['mmfishnet.engine'])
VISUALIZERS = Registry(
    'visualizer',
    parent=MMENGINE_VISUALIZERS,
    scope='mmfishnet',
    locations=['mmfishnet.visualization.visualizer'])


def register(registry: Registry):
    """Class decorator: register in ``registry`` and in MMEngine's root.

    Every default scope falls back to the root, which is what makes the bare
    name work in MMDetection's and MMPretrain's configs alike once mmfishnet
    is imported.

    Args:
        registry (Registry): One of the nodes of this module.

    Returns:
        Callable: The decorator.
    """

    def decorate(cls):
        registry.register_module(module=cls)
        registry.parent.register_module(module=cls)
        return cls

    return decorate
