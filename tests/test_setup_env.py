# Copyright (c) mmfishnet authors. All rights reserved.
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup_env = load(ROOT / 'tools/setup_env.py')

MAINTAINED = {
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmpretrain': '1.3.6',
    'onedl-mmsegmentation': '1.4.2',
}
CLASSIC = {
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
    'mmpretrain': '1.2.0',
    'mmsegmentation': '1.2.2',
    'setuptools': '80.9.0',
}


@pytest.mark.parametrize('torch, torchvision, plan', [
    (None, None, ['torch===2.13.0', 'torchvision==0.28.0']),
    ('1.13.1', '0.14.1', ['torch===2.13.0', 'torchvision==0.28.0']),
    ('2.13.0+cpu', None, ['torchvision==0.28.*']),
    ('2.0.1+cu118', None, ['torchvision==0.15.*']),
    ('2.4.0', '0.19.0', []),
    ('2.14.1', '0.29.1', []),
])
def test_torch_that_works_is_kept(torch, torchvision, plan):
    assert setup_env.plan_torch(torch, torchvision) == plan


def test_pinned_torch_and_torchvision_match():
    torch, torchvision = setup_env.read_requirements('torch')
    assert torch.startswith('torch===')
    expected, = setup_env.plan_torch(torch.split('===')[1], None)
    assert torchvision.startswith(expected.rstrip('*'))


@pytest.mark.parametrize('stack', ['maintained', 'classic'])
def test_pinned_packages_are_supported(stack):
    plan = setup_env.plan_stack(stack, {}, own=True)
    for module in setup_env.OPENMMLAB:
        name, version = plan[module].split('==')
        assert name in setup_env.versions.DISTRIBUTIONS[module]
        assert setup_env.versions.is_supported(module, version)


@pytest.mark.parametrize('installed, stack', [
    ({}, None),
    ({'torch': '2.13.0'}, None),
    (MAINTAINED, 'maintained'),
    (CLASSIC, 'classic'),
    ({'mmcv-lite': '2.1.0'}, 'classic'),
])
def test_present_stack(installed, stack):
    assert setup_env.present_stack(installed) == stack


def test_mixed_stacks_are_refused():
    with pytest.raises(setup_env.SetupError, match='onedl-mmcv, mmcv'):
        setup_env.present_stack({'onedl-mmcv': '2.3.6', 'mmcv': '2.1.0'})


def test_ours_follows_the_pins():
    assert setup_env.plan_stack('maintained', MAINTAINED, own=True) == {}
    older = {**MAINTAINED, 'onedl-mmcv': '2.3.5'}
    assert setup_env.plan_stack('maintained', older, own=True) == {
        'mmcv': 'onedl-mmcv==2.3.6'
    }


def test_theirs_is_kept_and_completed():
    older = {**MAINTAINED, 'onedl-mmcv': '2.3.5'}
    del older['onedl-mmpretrain']
    assert setup_env.plan_stack('maintained', older, own=False) == {
        'mmpretrain': 'onedl-mmpretrain==1.3.6'
    }
    # What the classic packages need is pip's to compare.
    assert setup_env.plan_stack('classic', CLASSIC, own=False) == {
        'ftfy': 'ftfy',
        'regex': 'regex',
        'setuptools': 'setuptools<81'
    }


def test_theirs_is_not_replaced():
    old = {**CLASSIC, 'mmcv': '2.0.1'}
    with pytest.raises(setup_env.SetupError, match='mmcv 2.0.1'):
        setup_env.plan_stack('classic', old, own=False)


def test_uv_takes_pips_indexes():
    """In the words of `pip config list`."""
    assert setup_env.uv_options("""\
:env:.find-links='/wheels /more'
:env:.no-index='0'
:env:.timeout='180'
global.extra-index-url='https://one.example/simple'
global.find-links='/others'
""") == ['--extra-index-url=https://one.example/simple',
         '--find-links=/wheels', '--find-links=/more',
         '--index-strategy=unsafe-best-match']
    assert '--no-index' in setup_env.uv_options(":env:.no-index='true'")


@pytest.mark.parametrize('output, text', [
    ("OSError: [Errno 28] No space left on device: '/x'", 'disk is full'),
    ('Temporary failure in name resolution', 'network'),
    ('fatal error: Python.h: No such file or directory', 'python3-dev'),
    ("There is no C++ compiler to compile mmcv's ops with", 'g++'),
    ('c++: fatal error: Killed signal terminated program', 'MAX_JOBS=1'),
    ('The virtual environment was not created successfully because '
     'ensurepip is not available.', 'python3-venv'),
    ('something else', 'log'),
])
def test_advice(output, text):
    assert text in setup_env.advice(output)


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    """A copy of what the set-up needs: it writes beside its sources."""
    folder = tmp_path_factory.mktemp('checkout')
    ignore = shutil.ignore_patterns('__pycache__', '.mim', 'configs')
    for name in ('configs', 'mmfishnet', 'requirements', 'tools'):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ('LICENSE', 'README.md', 'model-index.yml', 'pyproject.toml',
                 'setup.py'):
        shutil.copy2(ROOT / name, folder)
    return folder


@pytest.fixture(scope='module')
def their_env(checkout):
    """An environment in which all that this one has is installed."""
    env = checkout / 'env'
    venv.create(env, symlinks=True)
    packages = sysconfig.get_path('purelib')
    site, = env.glob('lib/python*/site-packages')
    (site / 'theirs.pth').write_text(packages)
    return env


def run(checkout, *args, **env):
    return subprocess.run(
        [sys.executable, checkout / 'tools/setup_env.py', *args],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
        env={**os.environ, 'PIP_NO_INDEX': '1', **env})


@pytest.mark.slow
def test_environment_that_is_complete(checkout, their_env):
    """Everything is kept, mmfishnet is added, and then nothing is to do."""
    before = setup_env.Setup(their_env).installed()
    done = run(checkout, their_env)
    assert done.returncode == 0, done.stdout
    for number, step in enumerate(setup_env.STEPS, 1):
        assert re.search(rf'\[{number}/5\] {step}: .* \(\d+ s\)',
                         done.stdout), done.stdout
    assert done.stdout.count('kept') == 3
    after = setup_env.Setup(their_env).installed()
    assert after == {**before, 'mmfishnet': after['mmfishnet']}
    assert (checkout / 'mmfishnet/.mim/configs').is_symlink()
    assert (checkout / 'mmfishnet/configs/mask_rcnn_r50_fpn.py').exists()

    start = time.monotonic()
    done = run(checkout, their_env)
    assert done.stdout == f'{their_env} is up to date.\n'
    assert time.monotonic() - start < 5


@pytest.mark.slow
def test_what_makes_it_out_of_date(checkout, their_env):
    setup = load(checkout / 'tools/setup_env.py').Setup(their_env)
    installed = setup.installed()
    older = {**installed, 'torch': '2.12.0'}
    gone = {**installed, 'removed': '1.0'}
    fewer = {name: installed[name] for name in ('torch', 'onedl-mmcv', 'mmcv')
             if name in installed}
    for written in ('.mim', 'configs'):
        (checkout / 'mmfishnet' / written).mkdir(exist_ok=True)
    for stamp, fits in ((installed, True), (older, False), (gone, False),
                        (fewer, True)):  # others may come to it
        setup.write_stamp(asked=setup.asked(), installed=stamp)
        assert setup.is_up_to_date() is fits

    new = checkout / 'configs/new.py'
    new.touch()
    assert not setup.is_up_to_date()
    new.unlink()
    pins = checkout / 'requirements/torch.txt'
    text = pins.read_text()
    pins.write_text(text.replace('2.13.0', '2.14.0'))
    assert not setup.is_up_to_date()
    pins.write_text(text)
    assert setup.is_up_to_date()


def test_failure_names_step_log_and_remedy(checkout):
    env = checkout / 'offline'
    done = run(checkout, env, PIP_NO_INDEX='0', PIP_RETRIES='1',
               PIP_INDEX_URL='http://127.0.0.1:9/', PIP_FIND_LINKS='',
               PIP_CONFIG_FILE=os.devnull)
    assert done.returncode == 1
    assert 'failed in step "torch"' in done.stdout
    assert f'The whole log: {checkout}/.cache/setup_env.log' in done.stdout
    assert 'No package index is reached' in done.stdout
    # what was begun is ours, and the next run goes on
    assert json.loads((env / setup_env.STAMP).read_text())['created']


def test_folder_that_is_no_environment(checkout):
    done = run(checkout, checkout / 'configs')
    assert done.returncode == 1
    assert 'holds no Python' in done.stdout
    assert not (checkout / 'configs/bin').exists()
