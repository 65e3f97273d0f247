# Copyright (c) mmfishnet authors. All rights reserved.
from .clip_grad import ClipGradUntilHook
from .fit_check import FitCheckHook
from .norm_check import NormCheckHook

__all__ = ['ClipGradUntilHook', 'FitCheckHook', 'NormCheckHook']
