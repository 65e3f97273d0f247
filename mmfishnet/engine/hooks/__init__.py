# Copyright (c) mmfishnet authors. All rights reserved.
from importlib import import_module

from .channels_last import ChannelsLastHook, use_channels_last
from .clip_grad import ClipGradUntilHook
from .compile import (
    CompileBackboneHook,
    compile_backbone,
    compile_in_place,
    why_not_compile,
)
from .empty_results import EmptyResultsHook
from .fit_check import FitCheckHook
from .norm_check import NormCheckHook
from .show import ShowHook
from .val_loss import ValLossHook

__all__ = [
    'ChannelsLastHook',
    'ClipGradUntilHook',
    'CompileBackboneHook',
    'EmptyResultsHook',
    'FitCheckHook',
    'NormCheckHook',
    'ShowHook',
    'ValLossHook',
    'compile_backbone',
    'compile_in_place',
    'use_channels_last',
    'why_not_compile',
]

# Here in 0.1.0.
_MOVED = dict(StopHook='stop', WholeCheckpointHook='checkpoint')


def __getattr__(name: str):
    if name in _MOVED:
        return getattr(import_module(f'..exact.{_MOVED[name]}', __name__),
                       name)
    raise AttributeError(f'module {__name__} has no attribute {name!r}')
