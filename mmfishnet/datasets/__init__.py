# Copyright (c) mmfishnet authors. All rights reserved.
from .shapes import CLASSES, draw_classification, draw_coco

__all__ = ['CLASSES', 'draw_classification', 'draw_coco']
