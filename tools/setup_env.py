#!/usr/bin/env python3
# Copyright (c) mmfishnet authors. All rights reserved.
"""Set up an environment for mmfishnet.

Makes a virtual environment, or takes one that you have, and installs torch,
OpenMMLab's packages with mmcv's ops compiled for that torch, mmfishnet itself
(editable), and with --tests what the tests need. What is there and works is
kept; where nothing is left to do, it ends within a second. It needs Python, a
C++ compiler and a network, nothing else.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / '.cache/setup_env.log'
STAMP = 'mmfishnet_setup.json'
STEPS = ('environment', 'torch', 'packages', 'mmcv', 'mmfishnet')
STACKS = {'maintained': 'mminstall', 'classic': 'mminstall_classic'}
PROBES, BUILD = ROOT / 'mmfishnet/probes.py', ROOT / 'tools/build_mmcv.py'

# Not imported: mmfishnet itself needs the packages that are installed here.
versions = SimpleNamespace(**runpy.run_path(ROOT / 'mmfishnet/version.py'))
probes = SimpleNamespace(**runpy.run_path(PROBES))
OPENMMLAB = {module: versions.DISTRIBUTIONS[module]
             for module in versions.NEEDED[1:] + versions.OPTIONAL}


class SetupError(Exception):
    """What is wrong and what to do, or the end of a command's output."""

    def __init__(self, problem: str, output: str = '') -> None:
        super().__init__(problem)
        self.output = output


def read_requirements(name: str) -> list[str]:
    """The lines of requirements/NAME.txt that are not comments."""
    lines = (ROOT / f'requirements/{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def plan_torch(torch: str | None, torchvision: str | None) -> list[str]:
    """What to install, given the versions that work (None: it does not)."""
    if torch is None or not versions.is_supported('torch', torch):
        return read_requirements('torch')
    # torchvision 0.28 is made for torch 2.13, and so on
    minor = versions.release(torch)[1] + 15
    return [] if torchvision else [f'torchvision==0.{minor}.*']


def present_stack(installed: dict[str, str]) -> str | None:
    """Which packages of OpenMMLab an environment holds, if any."""
    found = [name for names in OPENMMLAB.values() for name in names
             if name in installed]
    classic = [name for name in found if not name.startswith('onedl-')]
    if classic and len(classic) < len(found):
        raise SetupError(
            'The environment mixes distributions of OpenMMLab that overwrite '
            f'each other: {", ".join(found)}. Take them out (pip uninstall '
            f'{" ".join(found)}) and run the set-up again, or name another '
            'environment.')
    return ('classic' if classic else 'maintained') if found else None


def plan_stack(stack: str, installed: dict[str, str],
               own: bool) -> dict[str, str]:
    """What to install of a stack, by import name, or pip's for others.

    An environment of our own follows the pinned versions. In anybody else's,
    every supported version is kept, and one that is not is theirs to change.
    """
    plan = {}
    for pin in read_requirements(STACKS[stack]):
        name = re.match(r'[\w-]+', pin).group()
        module = next((key for key in OPENMMLAB if name in OPENMMLAB[key]), '')
        found = next(filter(installed.get, OPENMMLAB.get(module, ())), None)
        if own or not found:
            if f'{name}=={installed.get(name)}' != pin:
                plan[module or name] = pin
        elif not versions.is_supported(module, installed[found]):
            raise SetupError(
                f'The environment has {found} {installed[found]}; mmfishnet '
                f'needs {module}{versions.SUPPORTED[module]}. Change it there,'
                ' or name an environment that does not exist yet: the set-up '
                'makes it.')
    return plan


def uv_options(pip_config: str) -> list[str]:
    """Where packages come from, as `pip config list` has it, for uv."""
    # The environment's come first, and win.
    found = dict(re.findall(r"\.([\w-]+)='(.*)'$", pip_config, re.M)[::-1])
    options = [f'--{key}={word}' for key in (
        'index-url', 'extra-index-url', 'find-links', 'constraint')
        for word in found.get(key, '').split()]
    # The best version of all indexes, as pip takes it
    return options + ['--index-strategy=unsafe-best-match'] + [
        f'--{key}' for key in ('no-index', 'no-cache-dir')
        if found.get(key, '0').lower() in ('1', 'true', 'yes', 'on')]


ADVICE = {
    r'No space left on device|Disk quota exceeded':
    'The disk is full: free some space.',
    r'name resolution|Network is unreachable|NewConnectionError|ReadTimeout|'
    r'ConnectTimeout|ConnectionReset|ProxyError|SSLError':
    'No package index is reached: check the network and `pip config list`.',
    r'ensurepip is not available|Python\.h: No such file':
    'Python is incomplete. Debian and Ubuntu: apt-get install python3-venv '
    'python3-dev.',
    r'no C\+\+ compiler':
    'Install one. Debian and Ubuntu: apt-get install g++.',
    r'Killed signal|out of memory|Cannot allocate memory':
    'The memory ran out: set MAX_JOBS=1 and run it again.',
    r'No matching distribution|Could not find a version':
    'The index (`pip config list`) is not reached or has none for this Python.'
}


def advice(output: str) -> str:
    """What to do about a command that failed, from what it printed."""
    return next((text for pattern, text in ADVICE.items()
                 if re.search(pattern, output)),
                'Read the log; then run the set-up again, it goes on here.')


class Setup:
    """The steps on one environment; the arguments are the command's."""

    def __init__(self, env: Path, stack: str | None = None,
                 tests: bool = False) -> None:
        self.env, self.stack = env, stack
        stamp = self.read_stamp()
        self.own = stamp.get('created', False)  # made here, not by the user
        # What the tests need stays in order once it is there.
        self.tests = tests or stamp.get('tests', False)
        self.step = STEPS[0]

    def main(self, force: bool) -> None:
        if not force and self.python and self.is_up_to_date():
            print(f'{self.env} is up to date.')
            return
        LOG.parent.mkdir(exist_ok=True)
        LOG.write_text('')
        print(f'Setting up {self.env}; the log is {LOG}', flush=True)
        for self.step in STEPS:
            start = time.monotonic()
            result = getattr(self, f'step_{self.step}')()
            self.say(f'{result} ({time.monotonic() - start:.0f} s)')
        self.write_stamp(asked=self.asked(), installed=self.installed(),
                         stack=self.stack, tests=self.tests)
        print(f'Ready: source {self.env}/bin/activate')

    # Each step returns a line that says what came out.
    def step_environment(self) -> str:
        python = sys.version_info[:3]
        if self.python:
            python = self.ask(PROBES, 'python', f'{self.python} does not run')
        if tuple(python) < (3, 10):
            raise SetupError(
                f'Python {python[0]}.{python[1]} is too old, 3.10 is needed. '
                'Name a new environment: make env VENV=... PYTHON=python3.11')
        if not self.python or (self.own and 'pip' not in self.installed()):
            self.create()
        self.write_stamp(asked=None)  # not up to date until all is done
        return 'Python {}.{}.{}'.format(*python)

    def create(self) -> None:
        if self.env.exists() and any(self.env.iterdir()) and not self.own:
            raise SetupError(f'{self.env} is there, but holds no Python. '
                             'Remove it, or name another environment.')
        self.env.mkdir(parents=True, exist_ok=True)
        try:
            probes.disk('set-up', self.env)
        except OSError as error:
            raise SetupError(f'{error}. Free some space.') from None
        self.own = True
        self.write_stamp(created=True)
        self.run('making the environment', sys.executable, '-m', 'venv',
                 self.env)
        # Two to four times as fast as pip; where it fails, pip does it all.
        self.run(None, *self.pip, 'install', 'uv')

    def step_torch(self) -> str:
        found = self.ask(PROBES, 'torch') or {}
        plan = plan_torch(found.get('version'),
                          self.ask(PROBES, 'torchvision'))
        if plan:
            self.say(f'installing {" ".join(plan)}, a minute or more')
            self.install('installing torch', *plan,
                         keep=('torch', ) if len(plan) == 1 else ())
            found = self.ask(PROBES, 'torch', 'torch does not load')
            self.ask(PROBES, 'torchvision', 'torchvision does not work with '
                     f'torch {found["version"]}: install that of the same '
                     'build, or name a new environment')
        self.torch = found['version']
        return f'torch {self.torch}' + ', kept' * (not plan)

    def step_packages(self) -> str:
        installed = self.installed()
        present = present_stack(installed) or self.stack or 'maintained'
        if self.stack not in (None, present):
            raise SetupError(f'{self.env} holds the {present} packages. Name '
                             'another environment.')
        self.stack = present
        plan = plan_stack(present, installed, self.own)
        self.mmcv = plan.pop('mmcv', None)
        self.say(f"OpenMMLab's {present} packages"
                 + ' and what the tests need' * self.tests)
        files = [f'--requirement={ROOT}/requirements/{name}.txt'
                 for name in ['runtime'] + ['tests'] * self.tests]
        # torch up to 2.2 was built for numpy 1
        numpy = 'numpy<2' if versions.release(self.torch) < (2, 3) else 'numpy'
        # setuptools, ninja and packaging build mmcv and mmfishnet.
        self.install('installing packages', 'setuptools>=77.0.3', 'ninja',
                     'packaging', numpy, *plan.values(), *files)
        version = self.installed().get('opencv-python')
        if version and not self.ask(PROBES, 'cv2'):
            # The last one installed counts; this needs no desktop's libraries.
            self.install('installing OpenCV', '--force-reinstall', '--no-deps',
                         f'opencv-python-headless=={version}')
        self.ask(PROBES, 'cv2', 'cv2 does not load')
        return ', '.join(plan.values()) or 'present, kept'

    def step_mmcv(self) -> str:
        installed = self.installed()
        present = list(filter(installed.get, OPENMMLAB['mmcv']))
        if not self.mmcv:
            if self.ops_fit():
                return f'its ops work with torch {self.torch}, kept'
            name = 'onedl-mmcv' if self.stack == 'maintained' else 'mmcv'
            self.mmcv = f'{name}=={installed[present[0]]}'
        self.say(f'compiling {self.mmcv}, a minute or, with CUDA, a few')
        with tempfile.TemporaryDirectory() as wheels:
            self.run("compiling mmcv's ops", self.python, BUILD, self.mmcv,
                     wheels, show=True)
            if present:
                self.run('removing mmcv', *self.pip, 'uninstall', '-y',
                         *present)
            self.install('installing mmcv', *Path(wheels).iterdir())
        self.write_stamp(ops_torch=self.torch)
        self.ask(PROBES, 'mmcv_ops', "mmcv's ops do not work")
        return f'{self.mmcv}, its ops work with torch {self.torch}'

    def ops_fit(self) -> bool:
        """Whether mmcv's ops work with this torch, on a GPU if need be."""
        cuda = self.ask(PROBES, 'mmcv_ops')
        built = self.read_stamp().get('ops_torch')
        return (cuda is not None and built in (None, self.torch)
                and (cuda or self.ask(BUILD, 'find_cuda', '?')[0] is None))

    def step_mmfishnet(self) -> str:
        # By pip: uv would keep what it has built of the same sources.
        self.run('installing mmfishnet', *self.pip, 'install', '--no-deps',
                 '--no-build-isolation', '--editable', ROOT)
        self.ask(PROBES, 'imports', 'The packages do not load', 'mmdet.apis',
                 'mmpretrain.apis', 'mmfishnet')
        return f'{versions.__version__}, editable; everything loads'

    @property
    def python(self) -> str | None:
        """The environment's Python, None while it has none."""
        return shutil.which('python3', path=self.env / 'bin')

    @property
    def pip(self) -> tuple[str, ...]:
        return self.python, '-m', 'pip', '--disable-pip-version-check'

    def say(self, text: str) -> None:
        number = f'{STEPS.index(self.step) + 1}/{len(STEPS)}'
        print(f'[{number}] {self.step}: {text}', flush=True)

    def install(self, doing: str, *args,
                keep: tuple = ('torch', 'torchvision')) -> None:
        """Install, and leave the versions of ``keep`` as they are."""
        constraints = LOG.with_name('constraints.txt')
        constraints.write_text('\n'.join(
            f'{name}==={version}' for name, version in self.installed().items()
            if name in keep))
        args = [f'--constraint={constraints}', *args]
        uv = shutil.which('uv', path=self.env / 'bin') if self.own else None
        if uv:
            config = subprocess.check_output([*self.pip, 'config', 'list'])
            if self.run(None, uv, 'pip', 'install', '--python', self.python,
                        *uv_options(config.decode()), *args):
                return
        # Python compiles what it imports; all of torch takes a minute.
        self.run(doing, *self.pip, 'install', '--no-compile', *args)

    def run(self, doing: str | None, *command, show: bool = False) -> bool:
        """Run a command; its output, or its stderr if ``show``, is logged.
        A failure is an error where ``doing`` says what it is for, else False.
        """
        command = [str(word) for word in command]
        with LOG.open('a+', errors='replace') as log:
            log.write(f'\n$ {shlex.join(command)}\n')
            log.flush()
            begin = log.tell()
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL,
                stdout=None if show else log, stderr=log).returncode
            log.seek(begin)
            tail = ''.join(log.readlines()[-20:])
        if status and doing:
            raise SetupError(f'{doing} failed', tail)
        return status == 0

    def ask(self, file: Path, name: str, problem: str | None = None, *args):
        """What a function of a file gives in the environment's own Python;
        where it fails None, or an error if ``problem`` says what it means."""
        # not from here, where folders may have the names of packages
        done = subprocess.run(
            [self.python, '-c', 'import json, runpy, sys\n'
             'file, name, *args = sys.argv[1:]\n'
             'print(json.dumps(runpy.run_path(file)[name](*args)))',
             file, name, *args], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, cwd=tempfile.gettempdir())
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        if problem:
            raise SetupError(problem, ''.join(
                done.stderr.splitlines(keepends=True)[-8:]))

    def installed(self) -> dict[str, str]:
        return self.ask(PROBES, 'installed', f'{self.python} does not run')

    def read_stamp(self) -> dict:
        path = self.env / STAMP
        return json.loads(path.read_text()) if path.exists() else {}

    def write_stamp(self, **entries) -> None:
        (self.env / STAMP).write_text(
            json.dumps({**self.read_stamp(), **entries}, indent=1))

    def asked(self) -> str:
        """A hash of everything that decides what the set-up does."""
        files = [ROOT / 'setup.py', ROOT / 'mmfishnet/version.py', BUILD,
                 __file__, *sorted(ROOT.glob('requirements/*.txt'))]
        # setup.py writes a module for each config.
        configs = sorted(map(str, ROOT.glob('configs/**/*.py')))
        text = repr((str(ROOT), os.environ.get('FORCE_CUDA'), self.tests,
                     configs, [Path(path).read_text() for path in files]))
        return hashlib.sha256(text.encode()).hexdigest()

    def is_up_to_date(self) -> bool:
        stamp = self.read_stamp()
        return (stamp.get('asked') == self.asked()
                # What came to it since is not ours.
                and stamp['installed'].items() <= self.installed().items()
                and self.stack in (None, stamp['stack'])
                and all((ROOT / 'mmfishnet' / name).is_dir()
                        for name in ('.mim', 'configs')))


def main() -> int | None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='environment variables: those of '
        'tools/build_mmcv.py (see its --help) and of pip.',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'env', nargs='?', default=ROOT / '.venv',
        help='folder of the environment: one to make, or one that you have '
        "(venv, conda, ...) to complete; its torch and OpenMMLab's packages "
        'stay if they are supported. Default: .venv')
    parser.add_argument(
        '--stack', choices=list(STACKS),
        help='the maintained packages (onedl-*), or the last of OpenMMLab. '
        'Default: those that are there, else the maintained')
    parser.add_argument('--tests', action='store_true',
                        help='install what the tests need as well')
    parser.add_argument('--force', action='store_true',
                        help='go through all steps, also if nothing changed')
    args = parser.parse_args()
    setup = Setup(Path(os.path.abspath(args.env)), args.stack, args.tests)
    try:
        return setup.main(args.force)
    except SetupError as error:
        print(f'\nThe set-up failed in step "{setup.step}": {error}')
        if error.output:
            print(f'\n{error.output.strip()}\n\nThe whole log: {LOG}\n'
                  f'What to do: {advice(error.output)}')
        return 1


if __name__ == '__main__':
    sys.exit(main())
