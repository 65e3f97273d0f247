# Copyright (c) mmfishnet authors. All rights reserved.
"""FishNet and FishNeXt as backbones for OpenMMLab."""
from .version import __version__, check_versions

check_versions()

# For _base_ = 'mmfishnet::...': mmengine looks packages up in this table only.
from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

MODULE2PACKAGE.setdefault('mmfishnet', 'mmfishnet')

# Register everything, so that type='FishNet' works under any default scope,
# and checkpoints are read by our loaders.
from . import checkpoints, engine, models  # noqa: E402, F401

__all__ = ['__version__']
