# Copyright (c) mmfishnet authors. All rights reserved.
from .loading import use_safe_loading
from .pretrained import (
    drop_pretrained,
    find_pretrained,
    is_pretrained,
    require_pretrained,
)
from .read import CheckpointError, read_checkpoint

__all__ = [
    'CheckpointError', 'drop_pretrained', 'find_pretrained', 'is_pretrained',
    'read_checkpoint', 'require_pretrained', 'use_safe_loading'
]
