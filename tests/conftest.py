# Copyright (c) mmfishnet authors. All rights reserved.
"""Tools, and mmfishnet as others get it: built and installed."""
import gc
import itertools
import logging
import os
import re
import runpy
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from mmengine.logging import MMLogger
from mmengine.runner import set_random_seed
from mmengine.visualization import Visualizer

ROOT = Path(__file__).resolve().parents[1]
WIDE = '200'  # columns, so that no table is cut


def pytest_collection_modifyitems(items):
    """Files with slow tests first: at the end, only one job would work."""
    slow = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def seed():
    """A test that fails once fails again."""
    set_random_seed(0)


TESTS = itertools.count(1)


@pytest.fixture(autouse=True)
def light_heap():
    """MMEngine collects garbage for each data set that it builds, which takes
    a second where as much is loaded as here: what is there before a test is
    left out, but for a collection now and then."""
    if next(TESTS) % 25 == 0:
        gc.unfreeze()
        gc.collect()
    gc.freeze()


@pytest.fixture(scope='session')
def widths(tmp_path_factory):
    """widths(pages, width): how wide each page is in a window of so many
    pixels, by its name; more than these is scrolled to the right."""
    names = ('chromium', 'chromium-browser', 'google-chrome')
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip(f'needs a browser, one of {", ".join(names)}')
    folder = tmp_path_factory.mktemp('browser')

    def widths(pages, width):
        frames = ''.join(
            f'<iframe name="{page.name}" src="{page.resolve().as_uri()}" '
            f'style="width: {width}px; height: 900px; border: 0"></iframe>'
            for page in pages)
        outer = folder / 'frames.html'
        outer.write_text(f"""<body>{frames}<script>
            onload = () => document.querySelectorAll('iframe').forEach(frame =>
                frame.title = 'width ' + frame.contentDocument
                    .documentElement.scrollWidth)
            </script>""")
        done = subprocess.run([
            browser, '--headless', '--no-sandbox', '--hide-scrollbars',
            '--allow-file-access-from-files', '--virtual-time-budget=9000',
            f'--user-data-dir={folder}/profile', '--dump-dom', outer.as_uri()
        ], capture_output=True, text=True, timeout=300)
        found = re.findall(r'<iframe name="([^"]+)".*?title="width (\d+)"',
                           done.stdout)
        assert len(found) == len(pages), done.stderr[-2000:]
        return {name: int(number) for name, number in found}

    return widths


@pytest.fixture(scope='session')
def run_tool():
    """run_tool(name, *args, cwd=None): a tool in a process of its own."""

    def run_tool(name, *args, cwd=None):
        return subprocess.run(
            [sys.executable, ROOT / f'tools/{name}.py', *map(str, args)],
            env={**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': WIDE},
            cwd=cwd, capture_output=True, text=True)

    return run_tool


def forget_visualizers(kind=Visualizer):
    """A process begins without; MMDetection's all have one name, by which
    the next run would take up that of the run before, and its folder."""
    kind._instance_dict.clear()
    for derived in kind.__subclasses__():
        forget_visualizers(derived)


@pytest.fixture
def run_script(monkeypatch):
    """run_script(path, *args): run a script in this process, where it need
    not have its own: starting one takes seconds. Gives its exit status."""

    def run_script(path, *args):
        forget_visualizers()
        # The logger of a test before would write to what was captured then,
        # and is closed: setStream would flush it.
        for handler in MMLogger.get_current_instance().handlers:
            if type(handler) is logging.StreamHandler:
                handler.stream = sys.stdout
        with monkeypatch.context() as patch:
            patch.setattr(sys, 'argv', [str(path), *map(str, args)])
            patch.setenv('COLUMNS', WIDE)
            try:
                runpy.run_path(str(path), run_name='__main__')
            except SystemExit as error:
                if isinstance(error.code, str):
                    print(error.code, file=sys.stderr)
                    return 1
                return error.code or 0
        return 0

    return run_script


@pytest.fixture
def call_tool(run_script, capsys):
    """call_tool(name, *args): as run_tool, in this process."""

    def call_tool(name, *args):
        path = ROOT / f'tools/{name}.py'
        capsys.readouterr()
        code = run_script(path, *args)
        return subprocess.CompletedProcess([path, *args], code,
                                           *capsys.readouterr())

    return call_tool


@pytest.fixture
def check_published(call_tool, tmp_path):
    """check_published(checkpoint, image): share it, and do what its card says
    of how to use it. The file and the card's text are returned."""

    def check_published(checkpoint, image):
        done = call_tool('publish', checkpoint, tmp_path / 'published')
        assert done.returncode == 0, done.stderr
        path, = tmp_path.glob('published/*.pth')
        card = path.with_suffix('.md').read_text()
        code, = re.findall(r'## Use\n\n```python\n(.*?)```', card, re.S)
        for name, meant in (('image.jpg', image), (path.name, path),
                            ("'out'", repr(str(tmp_path / 'out')))):
            code = code.replace(name, str(meant))
        exec(code, {})
        return path, card

    return check_published


@pytest.fixture(scope='session')
def checkout(tmp_path_factory):
    """A copy of the sources, so that building leaves nothing in the tree."""
    folder = tmp_path_factory.mktemp('checkout')

    def ignore(path, names):
        # What an editable install wrote stays behind.
        written = path == str(ROOT / 'mmfishnet')
        return ['__pycache__'] + written * ['.mim', 'configs']

    for name in ('configs', 'mmfishnet', 'requirements', 'tools'):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ('LICENSE', 'MANIFEST.in', 'README.md', 'model-index.yml',
                 'pyproject.toml', 'setup.py'):
        shutil.copy2(ROOT / name, folder)
    return folder


@pytest.fixture(scope='session')
def build():
    """build(kind, source, target): call setuptools as pip does.

    The kind is 'wheel', 'sdist' or 'editable'; what it builds is returned.
    """

    def build(kind, source, target):
        target.mkdir()
        code = ('import sys; from setuptools import build_meta; '
                f'build_meta.build_{kind}(sys.argv[1])')
        subprocess.run([sys.executable, '-c', code, target], check=True,
                       stdout=subprocess.DEVNULL, cwd=source)
        path, = target.iterdir()
        return path

    return build


@pytest.fixture(scope='session')
def wheel(build, checkout, tmp_path_factory):
    return build('wheel', checkout, tmp_path_factory.mktemp('dist') / 'wheel')


@pytest.fixture(scope='session')
def make_env():
    """make_env(folder, wheel): an environment with mmfishnet from the wheel.

    All else in it is what this Python finds. Its Python is returned.
    """

    def make_env(folder, wheel):
        venv.create(folder, symlinks=True)
        python = folder / 'bin/python'
        subprocess.run([sys.executable, '-m', 'pip', '--python', python,
                        'install', '--quiet', '--no-deps', '--no-index',
                        wheel], check=True)
        # Not as a site folder: the .pth files in it are not read, and it is
        # such a file that leads to an editable install.
        site, = folder.glob('lib/python*/site-packages')
        (site / 'theirs.pth').write_text('\n'.join(
            path for path in sys.path
            if os.path.isdir(path) and not Path(path, 'mmfishnet').exists()))
        return python

    return make_env


@pytest.fixture(scope='session')
def project_python(make_env, wheel, tmp_path_factory):
    """The Python of an environment with mmfishnet from the wheel."""
    return make_env(tmp_path_factory.mktemp('project') / 'env', wheel)


@pytest.fixture(scope='session')
def project_environ():
    """The environment variables for that Python: none leads elsewhere."""
    hidden = ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV')
    return {**{key: value for key, value in os.environ.items()
               if key not in hidden}, 'OMP_NUM_THREADS': '1'}
