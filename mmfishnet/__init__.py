# Copyright (c) mmfishnet authors. All rights reserved.
"""FishNet and FishNeXt as backbones for OpenMMLab."""
import sys

from .version import __version__, check_versions

__all__ = ['__version__']

# `python -m mmfishnet` tells what is missing, and must start without it.
if not (sys.argv[:1] == ['-m']
        and ' -m mmfishnet ' in ' '.join([*sys.orig_argv, ''])):
    check_versions()

    # Register everything, so that type='FishNet' works under any default
    # scope. One lookup of MMEngine's is wrapped, so that it finds
    # _base_ = 'mmfishnet::...', see config.py.
    from . import engine, models  # noqa: F401
    from .config import config_path, config_variables

    __all__ += ['config_path', 'config_variables']
