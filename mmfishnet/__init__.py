# Copyright (c) mmfishnet authors. All rights reserved.
"""FishNet and FishNeXt as backbones for OpenMMLab."""
from .version import __version__, check_versions

check_versions()

# Register everything, so that type='FishNet' works under any default scope,
# and _base_ = 'mmfishnet::...' is found. Nothing of others is changed.
from . import engine, models  # noqa: E402, F401
from .config import config_path, config_variables  # noqa: E402

__all__ = ['__version__', 'config_path', 'config_variables']
