# Copyright (c) mmfishnet authors. All rights reserved.
"""Checks of what a runner has built, before the first step.

:class:`CheckHook` is the door for runs, :func:`check_config` for a config
alone. Both ask the data sets, loaders, evaluators, schedulers and the model
themselves, by the rules of this package:

- ``built.py``: what there is to be asked;
- ``coco.py`` and ``masks.py``: annotations in COCO's format;
- ``files.py`` and ``maps.py``: pictures and label maps as they are loaded;
- ``labels.py``: what each label means; ``model.py``: heads and channels;
- ``evaluation.py`` and ``schedule.py``.
"""
from .hook import CheckError, CheckHook, check_config, checked, is_built
from .problem import Problem, report

__all__ = [
    'CheckError', 'CheckHook', 'Problem', 'check_config', 'checked',
    'is_built', 'report'
]
