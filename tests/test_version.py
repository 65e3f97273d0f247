# Copyright (c) mmfishnet authors. All rights reserved.
"""What is installed is faked as folders on the path of a fresh Python."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from mmfishnet import version

ROOT = Path(__file__).resolve().parents[1]
CODE = """
import runpy, sys
module = runpy.run_path(sys.argv[1])
try:
    module['check_versions']()
except ImportError as error:
    print(error)
names = module['NEEDED'] + module['OPTIONAL']
print({name: module['installed_version'](name) for name in names})
print([name for name in names if name in sys.modules])
"""


def pinned(requirements, torch):
    """Distribution and version of each module, as the set-up pins them."""
    text = (ROOT / f'requirements/{requirements}.txt').read_text()
    pins = dict(re.findall(r'^([\w-]+)==([\d.]+)$', text, re.M), torch=torch)
    return {module: (name, pins[name])
            for module in version.NEEDED + version.OPTIONAL
            for name in version.DISTRIBUTIONS[module] if name in pins}


MAINTAINED = pinned('mminstall', '2.13.0+cu130')
CLASSIC = pinned('mminstall_classic', '2.0.1')


@pytest.fixture
def check(tmp_path):
    """Install fakes and return check_versions' message and the versions."""

    def run(packages, literal=True):
        for module, (name, number) in packages.items():
            folder = tmp_path / module
            folder.mkdir()
            (folder / '__init__.py').write_text('from .version import *')
            (folder / 'version.py').write_text(
                f"__version__ = '{number}'" if literal else 'from importlib.'
                f"metadata import version\n__version__ = version('{name}')")
            info = tmp_path / f'{name.replace("-", "_")}-{number}.dist-info'
            info.mkdir()
            (info / 'METADATA').write_text(
                f'Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n')
        # -S: no other packages than the fakes
        printed = subprocess.run(
            [sys.executable, '-S', '-c', CODE, version.__file__],
            env={**os.environ, 'PYTHONPATH': str(tmp_path)}, cwd=tmp_path,
            check=True, capture_output=True, text=True).stdout.splitlines()
        assert printed[-1] == '[]', 'the check must not import them'
        return '\n'.join(printed[:-2]), eval(printed[-2])

    return run


@pytest.mark.parametrize('literal', [True, False])
@pytest.mark.parametrize('packages', [MAINTAINED, CLASSIC])
def test_both_stacks_pass(check, packages, literal):
    message, found = check(packages, literal)
    assert message == '' and len(packages) == 6
    assert found == {name: number for name, (_, number) in packages.items()}


def test_mmdet_and_mmpretrain_may_be_missing(check):
    message, found = check(
        {name: MAINTAINED[name] for name in ('torch', 'mmengine', 'mmcv')})
    assert message == ''
    assert found['mmdet'] is None


@pytest.mark.parametrize('module, number, allowed', [
    ('torch', '1.13.1', 'torch>=2.0'),
    ('mmcv', '2.4.0', 'mmcv>=2.1.0, <2.4.0'),
    ('mmdet', '3.7.0rc1', 'mmdet>=3.3.0, <3.7.0'),
])
def test_unsupported_version(check, module, number, allowed):
    name, _ = MAINTAINED[module]
    message, _ = check({**MAINTAINED, module: (name, number)})
    assert f'{module}=={number} is used but incompatible' in message
    assert allowed in message
    assert 'python tools/setup_env.py' in message


@pytest.mark.parametrize('module', ['torch', 'mmengine', 'mmcv'])
def test_required_module_is_missing(check, module):
    packages = {**MAINTAINED}
    del packages[module]
    message, _ = check(packages)
    assert f'{module} is not installed' in message


def test_the_files_in_place_count(check, tmp_path):
    """Where two distributions share a module, the metadata cannot tell."""
    info = tmp_path / 'onedl_mmcv-2.3.6.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Name: onedl-mmcv\nVersion: 2.3.6\n')
    message, found = check({**CLASSIC, 'mmcv': ('mmcv', '2.0.0')})
    assert found['mmcv'] == '2.0.0'
    assert 'mmcv==2.0.0 is used' in message


def test_versions_of_this_environment():
    import mmcv
    import mmengine
    import torch
    for module in (torch, mmengine, mmcv):
        name = module.__name__
        assert version.release(version.installed_version(
            name)) == version.release(module.__version__)
    version.check_versions()


@pytest.mark.parametrize('module', version.SUPPORTED)
def test_ranges_are_what_packaging_reads(module):
    specifiers = SpecifierSet(version.SUPPORTED[module])
    for number in ('0.10.6', '0.10.7', '0.10.12', '1.0.0', '1.4.0', '2.0.1',
                   '2.0.9', '2.0.10', '2.0.11', '2.9.1', '2.13.0+cu130'):
        assert version.is_supported(module, number) is (
            number in specifiers), number
