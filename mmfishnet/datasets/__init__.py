# Copyright (c) mmfishnet authors. All rights reserved.
from .shapes import CLASSES, DETECTION_CLASSES, draw_classification, draw_coco

__all__ = [
    'CLASSES', 'DETECTION_CLASSES', 'draw_classification', 'draw_coco'
]
