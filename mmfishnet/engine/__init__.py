# Copyright (c) mmfishnet authors. All rights reserved.
from .hooks import ClipGradUntilHook

__all__ = ['ClipGradUntilHook']
