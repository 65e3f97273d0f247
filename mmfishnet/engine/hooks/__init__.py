# Copyright (c) mmfishnet authors. All rights reserved.
from .checkpoint import WholeCheckpointHook
from .clip_grad import ClipGradUntilHook
from .empty_results import EmptyResultsHook
from .fit_check import FitCheckHook
from .norm_check import NormCheckHook
from .show import ShowHook
from .stop import StopHook

__all__ = [
    'ClipGradUntilHook', 'EmptyResultsHook', 'FitCheckHook', 'NormCheckHook',
    'ShowHook', 'StopHook', 'WholeCheckpointHook'
]
