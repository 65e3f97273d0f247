# Copyright (c) mmfishnet authors. All rights reserved.
"""FishNet and FishNeXt as backbones for OpenMMLab."""
from .version import __version__, check_versions

check_versions()

# Inherited configs: mmengine looks packages up in this table only, so that
# _base_ = 'mmfishnet::mask_rcnn_fishnet150_fpn.py' works where we are
# imported.
from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

MODULE2PACKAGE.setdefault('mmfishnet', 'mmfishnet')

# Register everything, so that type='FishNet' works under any default scope,
# and checkpoints are read by our loaders.
from . import checkpoints, engine, models  # noqa: E402, F401

__all__ = ['__version__']
