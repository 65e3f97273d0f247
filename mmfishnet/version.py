# Copyright (c) mmfishnet authors. All rights reserved.
"""The version of mmfishnet, and the versions of others that it works with.

This file needs nothing but the standard library: the set-up reads it in an
environment where nothing is installed yet.
"""
from __future__ import annotations

import importlib.util
import operator
import re
from importlib import metadata
from pathlib import Path

__version__ = '0.2.0'

# import name: the versions that mmfishnet works with
SUPPORTED = {
    'torch': '>=2.0',
    'mmengine': '>=0.10.7, <1.0.0',
    'mmcv': '>=2.1.0, <2.4.0',
    'mmdet': '>=3.3.0, <3.7.0',
    'mmpretrain': '>=1.2.0, <1.4.0',
    'mmseg': '>=1.2.2, <1.5.0',
    # These two end in KeyError: 'info' where an annotation file has none. Not
    # refused at import: other jobs do not need it.
    'pycocotools': '!=2.0.9, !=2.0.10',
}
NEEDED = ('torch', 'mmengine', 'mmcv')
OPTIONAL = ('mmdet', 'mmpretrain', 'mmseg')

# Each of OpenMMLab's packages is distributed under several names.
DISTRIBUTIONS = {
    'torch': ('torch', ),
    'mmengine': ('onedl-mmengine', 'mmengine', 'mmengine-lite'),
    'mmcv': ('onedl-mmcv', 'mmcv', 'mmcv-lite', 'mmcv-full'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'pycocotools': ('pycocotools', ),
}


def installed_version(module: str) -> str | None:
    """Tell a module's version without importing it.

    mmdet refuses some versions of mmcv when it is imported, so a version that
    is only known after the import comes too late.

    Args:
        module (str): One of the import names in ``DISTRIBUTIONS``.

    Returns:
        str | None: The version of what ``import module`` would load, or None
        where that finds nothing.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    # The module's own word first: of two distributions that share an import
    # name, the metadata does not tell which one's files are in place.
    version_file = Path(spec.origin).with_name('version.py')
    if version_file.exists():
        literal = re.search(r"""^__version__\s*=\s*['"](.+?)['"]""",
                            version_file.read_text(encoding='utf-8'), re.M)
        if literal:
            return literal.group(1)
    for name in DISTRIBUTIONS[module]:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return None


def release(version: str) -> tuple[int, ...]:
    """Turn '2.13.0+cu130' or '2.13.0rc1' into (2, 13, 0) for comparing.

    Args:
        version (str): A version that starts with numbers.

    Returns:
        tuple[int, ...]: The first three numbers; missing ones are 0.
    """
    numbers = re.match(r'[\d.]*', version).group().split('.')
    numbers = [int(number) for number in numbers if number]
    return tuple((numbers + [0, 0, 0])[:3])


def is_supported(module: str, version: str) -> bool:
    """Whether mmfishnet works with this version of the module.

    Args:
        module (str): One of the import names in ``SUPPORTED``.
        version (str): The version to judge.
    """
    compare = {'>=': operator.ge, '<': operator.lt, '!=': operator.ne}
    return all(compare[sign](release(version), release(limit)) for sign, limit
               in re.findall(r'([<>=!]+)([\d.]+)', SUPPORTED[module]))


def requirement(module: str) -> str:
    """What pip is asked for: 'onedl-mmcv>=2.1.0,<2.4.0'."""
    return DISTRIBUTIONS[module][0] + SUPPORTED[module].replace(' ', '')


def check_versions() -> None:
    """Check that torch and OpenMMLab's packages are there and supported.

    Raises:
        ImportError: If one is missing, too old or too new; the message names
            the version found, those supported, and how to get one.
    """
    for module in NEEDED + OPTIONAL:
        version = installed_version(module)
        if version is None and module in NEEDED:
            problem = f'{module} is not installed'
        elif version and not is_supported(module, version):
            problem = f'{module}=={version} is used but incompatible'
        else:
            continue
        raise ImportError(
            f'{problem}. mmfishnet needs {module}{SUPPORTED[module]}. '
            "`python tools/setup_env.py` in mmfishnet's repository sets up an "
            'environment that fits, or brings one that you have up to it '
            '(see its --help).')
