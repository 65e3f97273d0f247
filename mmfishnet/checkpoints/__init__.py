# Copyright (c) mmfishnet authors. All rights reserved.
from .convert import CheckpointError, convert
from .load import convert_file, load_weights
from .pretrained import drop_pretrained, find_pretrained, require_pretrained
from .read import read_checkpoint

__all__ = [
    'CheckpointError', 'convert', 'convert_file', 'drop_pretrained',
    'find_pretrained', 'load_weights', 'read_checkpoint', 'require_pretrained'
]
