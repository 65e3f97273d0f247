# Copyright (c) mmfishnet authors. All rights reserved.
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MIM = 'mmfishnet/.mim/'


def python(*args, **kwargs):
    return subprocess.run(
        [sys.executable, *map(str, args)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        **kwargs).stdout


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    """A copy of the sources, so that building leaves nothing in the tree."""
    folder = tmp_path_factory.mktemp('checkout')
    for name in ('configs', 'mmfishnet', 'requirements', 'tools'):
        shutil.copytree(
            ROOT / name,
            folder / name,
            ignore=shutil.ignore_patterns('__pycache__', '.mim'))
    for name in ('LICENSE', 'MANIFEST.in', 'README.md', 'model-index.yml',
                 'pyproject.toml', 'setup.py'):
        shutil.copy2(ROOT / name, folder)
    return folder


def build(kind, checkout, target):
    """Call setuptools as pip does."""
    target.mkdir()
    python(
        '-c', 'import sys; from setuptools import build_meta; '
        f'build_meta.build_{kind}(sys.argv[1])', target, cwd=checkout)
    path, = target.iterdir()
    return path


@pytest.fixture(scope='module')
def wheel(checkout, tmp_path_factory):
    return build('wheel', checkout, tmp_path_factory.mktemp('dist') / 'wheel')


def files_of(wheel):
    return {
        name
        for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in
        name
    }


def test_wheel_ships_configs_and_tools(checkout, wheel):
    expected = {
        path.relative_to(checkout).as_posix()
        for name in ('mmfishnet', 'configs', 'tools')
        for path in (checkout / name).rglob('*')
        if path.is_file() and 'egg-info' not in str(path)
    }
    expected = {
        name if name.startswith('mmfishnet/') else MIM + name
        for name in expected | {'model-index.yml'}
    }
    assert files_of(wheel) == expected
    # the source tree stays as it was
    assert not (checkout / MIM).exists()


def test_wheel_names_neither_torch_nor_openmmlab(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata, = [
        name for name in archive.namelist() if name.endswith('/METADATA')
    ]
    required = [
        line for line in archive.read(metadata).decode().splitlines()
        if line.startswith('Requires-Dist:') and 'extra ==' not in line
    ]
    assert required
    assert not any('torch' in line or 'mm' in line for line in required)


def test_wheel_works_where_it_is_installed(wheel, tmp_path):
    python('-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index',
           '--target', tmp_path, wheel)
    mim = tmp_path / MIM
    assert os.access(mim / 'tools/dist_train.sh', os.X_OK)
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    printed = python(
        '-c', 'import sys, mmfishnet; from mmengine.config import Config; '
        'print(mmfishnet.__file__, Config.fromfile(sys.argv[1]).model.backbone'
        '.type)', mim / 'configs/mask_rcnn_fishnet150_fpn.py',
        cwd=tmp_path, env=environment).split()
    assert printed == [str(tmp_path / 'mmfishnet/__init__.py'),
                       'mmfishnet.FishNet']
    assert '--work-dir' in python(
        mim / 'tools/train.py', '--help', cwd=tmp_path, env=environment)


def test_wheel_from_sdist_is_the_same(checkout, wheel, tmp_path):
    sdist = build('sdist', checkout, tmp_path / 'dist')
    shutil.unpack_archive(sdist, tmp_path / 'source')
    source, = (tmp_path / 'source').iterdir()
    assert files_of(build('wheel', source, tmp_path / 'wheel')) == files_of(
        wheel)


def test_editable_install_links(checkout, tmp_path):
    build('editable', checkout, tmp_path / 'wheel')
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (checkout / MIM / name).is_symlink()
        assert (checkout / MIM / name).samefile(checkout / name)
    # again, over the links of the first time
    build('editable', checkout, tmp_path / 'again')
    assert (checkout / 'configs').is_dir()
    shutil.rmtree(checkout / MIM)
