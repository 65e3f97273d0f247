# Copyright (c) mmfishnet authors. All rights reserved.
from .channels_last import ChannelsLastHook, use_channels_last
from .clip_grad import ClipGradUntilHook
from .compile import CompileBackboneHook, compile_in_place, why_not_compile
from .empty_results import EmptyResultsHook
from .fit_check import FitCheckHook
from .show import ShowHook
from .val_loss import ValLossHook

__all__ = [
    'ChannelsLastHook',
    'ClipGradUntilHook',
    'CompileBackboneHook',
    'EmptyResultsHook',
    'FitCheckHook',
    'ShowHook',
    'ValLossHook',
    'compile_in_place',
    'use_channels_last',
    'why_not_compile',
]
