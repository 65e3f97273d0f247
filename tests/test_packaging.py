# Copyright (c) mmfishnet authors. All rights reserved.
import os
import shutil
import subprocess
import zipfile

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

def run(python, *args, **kwargs):
    return subprocess.run([python, *args], check=True, text=True,
                          stdout=subprocess.PIPE, **kwargs).stdout


def files_of(wheel):
    return {name for name in zipfile.ZipFile(wheel).namelist()
            if '.dist-info/' not in name}


def modules_of(checkout):
    """The modules that stand for configs, from its paths."""
    folder = checkout / 'configs'
    return ['mmfishnet/configs/' + path.relative_to(folder).as_posix().replace(
        '-', '_') for path in folder.rglob('*.py')]


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
    # Each is a path of identifiers, and no two configs have the same.
    modules = modules_of(checkout)
    assert len(set(modules)) == len(modules)
    assert all(map(str.isidentifier, '/'.join(modules).replace(
        '.py', '').split('/')))
    assert files_of(wheel) == expected | set(modules)
    # the source tree stays as it was
    assert not (checkout / MIM).exists()
    assert not (checkout / 'mmfishnet/configs').exists()

    archive = zipfile.ZipFile(wheel)
    metadata, = [
        name for name in archive.namelist() if name.endswith('/METADATA')]
    required = [
        line for line in archive.read(metadata).decode().splitlines()
        if line.startswith('Requires-Dist:') and 'extra ==' not in line]
    assert required
    assert not any('torch' in line or 'mm' in line for line in required)


def test_tools_of_the_wheel(project_python, project_environ, tmp_path):
    """What is built and trained with it: test_downstream.py."""
    site, = project_python.parents[1].glob('lib/python*/site-packages')
    assert os.access(site / MIM / 'tools/dist_train.sh', os.X_OK)
    for tool, word in (('train', '--work-dir'), ('own_data', '--val-images')):
        assert word in run(project_python, '-m', 'mmfishnet', tool, '--help',
                           cwd=tmp_path, env=project_environ)


def test_editable_install(build, make_env, checkout, wheel, project_environ,
                          tmp_path):
    # Another copy: an editable install writes into the sources.
    source = shutil.copytree(checkout, tmp_path / 'source')
    # over what one of another version left
    modules = source / 'mmfishnet/configs'
    for folder in (modules, source / MIM):
        folder.mkdir()
        (folder / 'stale.py').touch()
    (source / MIM / 'configs').symlink_to('../../configs')
    editable = build('editable', source, tmp_path / 'editable')
    assert not (modules / 'stale.py').exists()
    assert not (source / MIM / 'stale.py').exists()
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (source / MIM / name).is_symlink()
        assert (source / MIM / name).samefile(source / name)
    assert len(list(modules.rglob('*.py'))) == len(modules_of(source))

    # Configs inherit from it.
    forms = dict(INHERIT)
    if installed_version('mmengine') == '0.10.7':
        # It looks for modules of editable installs in the wrong folder.
        del forms['pure.py']
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
    printed = run(
        make_env(tmp_path / 'env', editable), '-c',
        'import sys, mmfishnet; from mmengine.config import Config; '
        'print(mmfishnet.__file__, '
        '*(Config.fromfile(file).model.backbone.type for file in '
        'sys.argv[1:]))', *forms, cwd=tmp_path, env=project_environ).split()
    assert printed == [str(source / 'mmfishnet/__init__.py')
                       ] + len(forms) * ['mmfishnet.FishNet']

    # What it wrote into the sources is in no build of another kind, and the
    # wheel of an archive is that of the sources.
    sdist = build('sdist', source, tmp_path / 'sdist')
    shutil.unpack_archive(sdist, tmp_path / 'unpacked')
    unpacked, = (tmp_path / 'unpacked').iterdir()
    assert not (unpacked / MIM).exists()
    assert not (unpacked / 'mmfishnet/configs').exists()
    assert files_of(build('wheel', unpacked, tmp_path / 'wheel')) == files_of(
        wheel)
