# Copyright (c) mmfishnet authors. All rights reserved.
from .complexity import Complexity, measure, measure_kept_bytes
from .direct_bp import DirectBP, examine, measure_gradients
from .fish_picture import draw_fish
from .peers import NETWORKS, Network, find_network

__all__ = [
    'NETWORKS', 'Complexity', 'DirectBP', 'Network', 'draw_fish', 'examine',
    'find_network', 'measure', 'measure_gradients', 'measure_kept_bytes'
]
