# Copyright (c) mmfishnet authors. All rights reserved.
"""How configs of other projects inherit from ours.

There are three forms, and one copy of each config. The first works in every
tool, because MMEngine evaluates ``_base_`` as an expression::

    _base_ = __import__('mmfishnet').config_path(
        'mask_rcnn_fishnet150_fpn.py')

The second needs mmfishnet imported before (our tools do), and is ours to
understand, see :func:`_get_cfg_path`::

    _base_ = 'mmfishnet::mask_rcnn_fishnet150_fpn.py'

The third is for pure-Python configs. MMEngine does not import there, but
reads ``<package>/configs/<name>.py`` and executes it, and knows no ``_base_``
in there. So ``setup.py`` writes, for each file in ``configs``, a module there
whose one statement takes over what the text config comes to
(:func:`config_variables`)::

    with read_base():
        from mmfishnet.configs.mask_rcnn_fishnet150_fpn import *
"""
from __future__ import annotations

import importlib.util
import os
from difflib import get_close_matches
from pathlib import Path

from mmengine.config import Config

# Where setup.py puts them for MIM (a link in an editable install, else a
# copy), or else where they are in a checkout.
_PACKAGE = Path(__file__).resolve().parent
CONFIGS = _PACKAGE / '.mim/configs'
if not CONFIGS.is_dir():
    CONFIGS = _PACKAGE.parent / 'configs'


def config_path(name: str) -> str:
    """Tell where a config of ours lies, or one of MMSegmentation's.

    MMEngine itself finds 'mmseg::...' only where a distribution of the name
    mmsegmentation is installed, which the maintained one has not.

    Args:
        name (str): Path of the config below ``configs``, for example
            'classification/fishnet150_8xb32_in1k.py', or
            'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py'.

    Returns:
        str: The file, for ``_base_`` or ``Config.fromfile``.

    Raises:
        FileNotFoundError: If there is no such config.
        ModuleNotFoundError: If MMSegmentation is needed and not installed.
    """
    if os.fspath(name).startswith('mmseg::'):
        return _mmseg_config_path(os.fspath(name).partition('::')[2])
    names = [
        path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob('*.py')
    ]
    if (name := os.fspath(name)) not in names:
        near = get_close_matches(name, names) or sorted(
            other for other in names if '_base_' not in other)
        raise FileNotFoundError(
            f'mmfishnet has no config {name!r} in {CONFIGS}. Did you mean one '
            f'of these? {", ".join(near)}')
    return str(CONFIGS / name)


def _mmseg_config_path(name: str) -> str:
    spec = importlib.util.find_spec('mmseg')
    if spec is None:
        raise ModuleNotFoundError(
            f'this config builds on {name} of MMSegmentation, which is not '
            "installed. `python tools/setup_env.py` in mmfishnet's sources "
            'installs it, as does `pip install onedl-mmsegmentation`.')
    path = Path(spec.origin).parent / '.mim' / 'configs' / name
    if not path.is_file():
        raise FileNotFoundError(
            f'MMSegmentation has no config {name!r} (looked for {path}).')
    return str(path)


def config_variables(name: str) -> dict:
    """Read a config of ours, for the modules that ``setup.py`` writes.

    Args:
        name (str): Path of the config below ``configs``.

    Returns:
        dict: What the config defines, bases included, in built-in types.

    Raises:
        FileNotFoundError: If there is no such config.
    """
    # lazy_import: MMEngine must not take it for a pure-Python config.
    return Config.fromfile(config_path(name), lazy_import=False).to_dict()


_mmengine_get_cfg_path = Config._get_cfg_path


def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
    """Find the base ``cfg_path`` of the config ``filename``.

    MMEngine's own lookup of 'package::name' cannot serve us: it knows the
    packages of one table, wants a folder in the name and, in 0.10.7, does not
    find editable installs. Above all, it looks the config's types up in the
    package's registries, and ours hold only what is ours: the detectors and
    data sets are MMDetection's and MMPretrain's.
    """
    package, separator, name = cfg_path.partition('::')
    if separator and package == 'mmfishnet':
        return config_path(name), None
    # MMEngine ends here, too, when it has read all metafiles of the package:
    # a second for each base, for MMDetection.
    if separator and package.isidentifier():
        spec = importlib.util.find_spec(package)
        path = Path(spec and spec.origin or '').parent / '.mim/configs' / name
        if path.is_file():
            return str(path), package
    return _mmengine_get_cfg_path(cfg_path, filename)


Config._get_cfg_path = staticmethod(_get_cfg_path)
