# Copyright (c) mmfishnet authors. All rights reserved.
import os
import shutil
import subprocess
import zipfile

import pytest

from mmfishnet.__main__ import TOOLS
from mmfishnet.version import installed_version

MIM = 'mmfishnet/.mim/'
# The three forms that mmfishnet/config.py names.
INHERIT = {
    'scheme.py':
    "_base_ = 'mmfishnet::mask_rcnn_fishnet150_fpn.py'",
    'function.py':
    "_base_ = __import__('mmfishnet').config_path("
    "'mask_rcnn_fishnet150_fpn.py')",
    'pure.py':
    'from mmengine.config import read_base\n'
    'with read_base():\n'
    '    from mmfishnet.configs.mask_rcnn_fishnet150_fpn import *\n'
}
# MMDetection is there, and meets the name of ours in a config.
USE = """
import sys
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
cfg = Config.fromfile(sys.argv[1]).model.backbone
fish = MODELS.build(cfg)
print(sys.modules['mmfishnet'].__file__)
print([tuple(x.shape) for x in fish(torch.rand(1, 3, 64, 96))])
"""


def run(python, *args, **kwargs):
    return subprocess.run([python, *args],
                          check=True,
                          stdout=subprocess.PIPE,
                          text=True,
                          **kwargs).stdout


def files_of(wheel):
    return {
        name
        for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in
        name
    }


def config_files(checkout):
    folder = checkout / 'configs'
    return [
        path.relative_to(folder).as_posix() for path in folder.rglob('*.py')
    ]


def test_wheel_ships_configs_and_tools(checkout, wheel):
    expected = {
        path.relative_to(checkout).as_posix()
        for name in ('mmfishnet', 'configs', 'tools')
        for path in (checkout / name).rglob('*')
        if path.is_file() and 'egg-info' not in str(path)
        and '__pycache__' not in path.parts
    }
    assert {f'tools/{name}.py' for name in TOOLS} <= expected
    expected = {
        name if name.startswith('mmfishnet/') else MIM + name
        for name in expected | {'model-index.yml'}
    }
    modules = {
        'mmfishnet/configs/' + name.replace('-', '_')
        for name in config_files(checkout)
    }
    assert files_of(wheel) == expected | modules
    # the source tree stays as it was
    assert not (checkout / MIM).exists()
    assert not (checkout / 'mmfishnet/configs').exists()


def test_every_config_can_be_a_module(checkout):
    """Its path is one of identifiers, and no other config has the same."""
    names = config_files(checkout)
    modules = [name[:-len('.py')].replace('-', '_') for name in names]
    wrong = [
        name for name, module in zip(names, modules)
        if modules.count(module) > 1 or not all(
            map(str.isidentifier, module.split('/')))
    ]
    assert not wrong


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


def test_wheel_works_where_it_is_installed(project_python, project_environ,
                                           tmp_path):
    site, = project_python.parents[1].glob('lib/python*/site-packages')
    mim = site / MIM
    assert os.access(mim / 'tools/dist_train.sh', os.X_OK)
    file, shapes = run(
        project_python,
        '-c',
        USE,
        mim / 'configs/mask_rcnn_fishnet150_fpn.py',
        cwd=tmp_path,
        env=project_environ).splitlines()
    assert file == str(site / 'mmfishnet/__init__.py')
    assert shapes == str([(1, 320, 16, 24), (1, 832, 8, 12), (1, 1600, 4, 6),
                          (1, 2112, 2, 3)])
    for tool, word in (('train', '--work-dir'), ('own_data', '--val-images')):
        assert word in run(
            project_python,
            '-m',
            'mmfishnet',
            tool,
            '--help',
            cwd=tmp_path,
            env=project_environ)


def test_wheel_from_sdist_is_the_same(build, checkout, wheel, tmp_path):
    sdist = build('sdist', checkout, tmp_path / 'dist')
    shutil.unpack_archive(sdist, tmp_path / 'source')
    source, = (tmp_path / 'source').iterdir()
    assert files_of(build('wheel', source, tmp_path / 'wheel')) == files_of(
        wheel)


@pytest.fixture
def source(checkout, tmp_path):
    """Another copy: an editable install writes into the sources."""
    return shutil.copytree(checkout, tmp_path / 'source')


def test_editable_install_links(build, source, tmp_path):
    stale = source / 'mmfishnet/configs/stale.py'
    stale.parent.mkdir()
    stale.touch()
    build('editable', source, tmp_path / 'wheel')
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (source / MIM / name).is_symlink()
        assert (source / MIM / name).samefile(source / name)
    assert not stale.exists()
    # again, over the links of the first time
    build('editable', source, tmp_path / 'again')
    assert len(list(
        (source / 'mmfishnet/configs').rglob('*.py'))) == len(
            config_files(source))
    # and what it wrote into the sources is in no build of another kind
    sdist = build('sdist', source, tmp_path / 'sdist')
    shutil.unpack_archive(sdist, tmp_path / 'unpacked')
    unpacked, = (tmp_path / 'unpacked').glob('*/mmfishnet')
    assert not (unpacked / '.mim').exists()
    assert not (unpacked / 'configs').exists()


def test_editable_install_is_inherited_from(build, make_env, source,
                                            project_environ, tmp_path):
    editable = build('editable', source, tmp_path / 'wheel')
    python = make_env(tmp_path / 'env', editable)
    forms = dict(INHERIT)
    if installed_version('mmengine') == '0.10.7':
        # It looks for modules of editable installs in the wrong folder.
        del forms['pure.py']
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
    printed = run(
        python,
        '-c',
        'import sys, mmfishnet; from mmengine.config import Config; '
        'print(mmfishnet.__file__, '
        '*(Config.fromfile(file).model.backbone.type for file in '
        'sys.argv[1:]))',
        *forms,
        cwd=tmp_path,
        env=project_environ).split()
    assert printed == [str(source / 'mmfishnet/__init__.py')
                       ] + len(forms) * ['mmfishnet.FishNet']
