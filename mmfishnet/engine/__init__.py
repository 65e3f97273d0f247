# Copyright (c) mmfishnet authors. All rights reserved.
from .hooks import ClipGradUntilHook
from .log import TrainLogProcessor

__all__ = ['ClipGradUntilHook', 'TrainLogProcessor']
