# Copyright (c) mmfishnet authors. All rights reserved.
from .instances import beside, draw_instances, draw_pixels, draw_scores

__all__ = ['beside', 'draw_instances', 'draw_pixels', 'draw_scores']
