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



def pins(name):
    return dict(line.split('==') for line in setup_env.read_requirements(name)
                if '==' in line)


MAINTAINED = pins('mminstall')
CLASSIC = {**pins('mminstall_classic'), 'setuptools': '80.9.0'}


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


@pytest.mark.parametrize('installed, stack', [
    ({}, None),
    ({'torch': '2.13.0'}, None),
    (MAINTAINED, 'maintained'),
    (CLASSIC, 'classic'),
    ({'mmcv-lite': '2.1.0'}, 'classic'),
])
def test_present_stack(installed, stack):
    assert setup_env.present_stack(installed) == stack
    # Packages of both are refused.
    mixed = {**installed, 'mmcv': '2.1.0', 'onedl-mmcv': '2.3.6'}
    with pytest.raises(setup_env.SetupError, match='onedl-mmcv, mmcv'):
        setup_env.present_stack(mixed)


def test_ours_follows_the_pins_and_theirs_is_kept():
    plan = setup_env.plan_stack
    assert list(plan('maintained', {}, own=True).values()) == [
        f'{name}=={version}' for name, version in MAINTAINED.items()]
    assert plan('maintained', MAINTAINED, own=True) == {}
    older = {**MAINTAINED, 'onedl-mmcv': '2.3.5'}
    pin = {'mmcv': f'onedl-mmcv=={MAINTAINED["onedl-mmcv"]}'}
    assert plan('maintained', older, own=True) == pin
    # Theirs is completed,
    assert plan('maintained', older, own=False) == {}
    del older['onedl-mmcv']
    assert plan('maintained', older, own=False) == pin
    # (what the classic packages need is pip's to compare)
    assert plan('classic', CLASSIC, own=False) == {
        'ftfy': 'ftfy', 'regex': 'regex', 'setuptools': 'setuptools<81'}
    # and not replaced.
    with pytest.raises(setup_env.SetupError, match='mmcv 2.0.1'):
        plan('classic', {**CLASSIC, 'mmcv': '2.0.1'}, own=False)


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
def sources(checkout, tmp_path_factory):
    """A copy of its own: the set-up writes beside its sources."""
    return shutil.copytree(checkout, tmp_path_factory.mktemp('set-up') / 'it')


@pytest.fixture(scope='module')
def their_env(sources):
    """An environment in which all that this one has is installed."""
    env = sources / 'env'
    venv.create(env, symlinks=True)
    site, = env.glob('lib/python*/site-packages')
    (site / 'theirs.pth').write_text(sysconfig.get_path('purelib'))
    return env


def run(sources, *args, **env):
    return subprocess.run(
        [sys.executable, sources / 'tools/setup_env.py', *args],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
        env={**os.environ, 'PIP_NO_INDEX': '1', **env})


@pytest.mark.slow
def test_environment_that_is_complete(sources, their_env):
    """Everything is kept, mmfishnet is added, and then nothing is to do."""
    before = setup_env.Setup(their_env).installed()
    done = run(sources, their_env)
    assert done.returncode == 0, done.stdout
    for number, step in enumerate(setup_env.STEPS, 1):
        assert re.search(rf'\[{number}/5\] {step}: .* \(\d+ s\)',
                         done.stdout), done.stdout
    assert done.stdout.count('kept') == 3
    after = setup_env.Setup(their_env).installed()
    assert after == {**before, 'mmfishnet': after['mmfishnet']}
    assert (sources / 'mmfishnet/.mim/configs').is_symlink()
    assert (sources / 'mmfishnet/configs/mask_rcnn_r50_fpn.py').exists()

    start = time.monotonic()
    done = run(sources, their_env)
    assert done.stdout == f'{their_env} is up to date.\n'
    assert time.monotonic() - start < 5


@pytest.mark.slow
def test_what_makes_it_out_of_date(sources, their_env):
    setup = load(sources / 'tools/setup_env.py').Setup(their_env)
    installed = setup.installed()
    older = {**installed, 'torch': '2.12.0'}
    gone = {**installed, 'removed': '1.0'}
    fewer = {'torch': installed['torch']}  # others may come to it
    for written in ('.mim', 'configs'):
        (sources / 'mmfishnet' / written).mkdir(exist_ok=True)
    for stamp, fits in ((older, False), (gone, False), (fewer, True)):
        setup.write_stamp(asked=setup.asked(), installed=stamp)
        assert setup.is_up_to_date() is fits

    new = sources / 'configs/new.py'
    new.touch()
    assert not setup.is_up_to_date()
    new.unlink()
    pins = sources / 'requirements/torch.txt'
    text = pins.read_text()
    pins.write_text(text.replace('2.13.0', '2.14.0'))
    assert not setup.is_up_to_date()
    pins.write_text(text)
    assert setup.is_up_to_date()


def test_failure_names_step_log_and_remedy(sources):
    env = sources / 'offline'
    done = run(sources, env, PIP_NO_INDEX='0', PIP_RETRIES='1',
               PIP_INDEX_URL='http://127.0.0.1:9/', PIP_FIND_LINKS='',
               PIP_CONFIG_FILE=os.devnull)
    assert done.returncode == 1
    assert 'failed in step "torch"' in done.stdout
    assert f'The whole log: {sources}/.cache/setup_env.log' in done.stdout
    assert 'No package index is reached' in done.stdout
    # what was begun is ours, and the next run goes on
    assert json.loads((env / setup_env.STAMP).read_text())['created']


def test_folder_that_is_no_environment(sources):
    done = run(sources, sources / 'configs')
    assert done.returncode == 1
    assert 'holds no Python' in done.stdout
    assert not (sources / 'configs/bin').exists()
