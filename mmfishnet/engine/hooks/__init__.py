# Copyright (c) mmfishnet authors. All rights reserved.
from .clip_grad import ClipGradUntilHook
from .norm_check import NormCheckHook

__all__ = ['ClipGradUntilHook', 'NormCheckHook']
