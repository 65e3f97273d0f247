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
MINIMUM_PYTHON = (3, 10)
# With the CUDA libraries that torch brings, the environment takes 7 GB.
DISK_SPACE_GB = 8

# Not imported: mmfishnet itself needs the packages that are installed here.
versions = SimpleNamespace(**runpy.run_path(ROOT / 'mmfishnet/version.py'))
OPENMMLAB = {module: names for module, names in versions.DISTRIBUTIONS.items()
             if module != 'torch'}


class SetupError(Exception):
    """A problem, what to do about it, and the end of a command's output."""

    def __init__(self, problem: str, todo: str, output: str = '') -> None:
        super().__init__(problem)
        self.todo, self.output = todo, output


# ---- decisions: functions of what was found, and of nothing else ----------
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
            f'each other: {", ".join(found)}',
            f'Take them out (pip uninstall {" ".join(found)}) and run the '
            'set-up again, or name another environment.')
    return ('classic' if classic else 'maintained') if found else None


def plan_stack(stack: str, installed: dict[str, str],
               own: bool) -> dict[str, str]:
    """What to install of OpenMMLab's packages and what they need besides.

    An environment of our own follows the pinned versions. In anybody else's,
    every supported version is kept, and one that is not is theirs to change.

    Args:
        stack (str): 'maintained' or 'classic'.
        installed (dict[str, str]): Versions by distribution name.
        own (bool): Whether the set-up made the environment.

    Returns:
        dict[str, str]: Requirements by import name.
    """
    plan = {}
    for requirement in read_requirements(STACKS[stack]):
        pin = re.match(r'[\w-]+', requirement).group()
        module = next((module for module, names in OPENMMLAB.items()
                       if pin in names), None)
        found = next((name for name in OPENMMLAB.get(module, ())
                      if name in installed), None)
        if found and not own:
            if not versions.is_supported(module, installed[found]):
                raise SetupError(
                    f'The environment has {found} {installed[found]}; '
                    f'mmfishnet needs {versions.supported_range(module)}',
                    'Change it there, or name an environment that does not '
                    'exist yet: the set-up makes it.')
        elif f'{pin}=={installed.get(pin)}' != requirement:
            plan[module or pin] = requirement
    return plan


ADVICE = {
    r'No space left on device|Disk quota exceeded':
    'The disk is full: free some space.',
    r'name resolution|Network is unreachable|NewConnectionError|ReadTimeout|'
    r'ConnectTimeout|ConnectionReset|ProxyError|SSLError':
    'No package index is reached: check the network and `pip config list`.',
    r'ensurepip is not available|Python\.h: No such file':
    'Python is incomplete. Debian and Ubuntu: apt-get install python3-venv '
    'python3-dev.',
    r'There is no C\+\+ compiler':
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


# ---- questions to the environment's own Python; each answers in JSON ------
PROBE = """
import json, re, sys
from importlib import metadata
installed = {}
for dist in metadata.distributions():
    name = re.sub('[-_.]+', '-', dist.metadata['Name'] or '').lower()
    installed.setdefault(name, dist.version)
print(json.dumps(dict(python=sys.version_info[:3], installed=installed)))
"""

TORCH_PROBE = """
import json, torch
probe = dict(torch=torch.__version__, torchvision=None)
try:
    import torchvision
    torchvision.ops.nms(torch.zeros(1, 4), torch.ones(1), 0.5)
    probe.update(torchvision=torchvision.__version__)
except Exception as error:
    probe.update(problem=f'{type(error).__name__}: {error}')
print(json.dumps(probe))
"""

CV2_PROBE = 'import cv2, json; print(json.dumps(cv2.__version__))'
CUDA_PROBE = ('import build_mmcv, json; '
              'print(json.dumps(build_mmcv.find_cuda()[0]))')

# Ops compiled for another torch do not always fail to load: run one.
OPS_PROBE = """
import json, torch
from mmcv.ops import get_compiling_cuda_version, nms
cuda = get_compiling_cuda_version() != 'not available'
boxes = torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8], [20, 20, 29, 29]])
scores = torch.tensor([.5, .9, .7])
for device in ['cpu'] + ['cuda'] * (cuda and torch.cuda.is_available()):
    kept = nms(boxes.to(device), scores.to(device), 0.5)[1].tolist()
    assert kept == [1, 2], f'nms on {device} keeps {kept}'
print(json.dumps(dict(cuda=cuda)))
"""

CHECK = 'import mmdet.apis, mmpretrain.apis, mmfishnet; print(1)'


class Setup:
    """The steps, in order, on one environment.

    Args:
        env (Path): The environment's folder.
        stack (str, optional): As on the command line.
        tests (bool): Whether the tests are to run in it. What they need stays
            in order once it is there.
    """

    def __init__(self, env: Path, stack: str | None = None,
                 tests: bool = False) -> None:
        self.env, self.stack = env, stack
        self.tests = tests or self.read_stamp().get('tests', False)
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
        self.write_stamp(asked=self.asked(), installed=self.tracked(),
                         tests=self.tests)
        print(f'Ready: source {self.env}/bin/activate')

    # ---- the steps: each returns a line that says what came out ----------
    def step_environment(self) -> str:
        self.own = self.read_stamp().get('created', False)
        python = self.probe()['python'] if self.python else sys.version_info
        if tuple(python) < MINIMUM_PYTHON:
            raise SetupError(
                'Python {}.{} is too old, {}.{} is needed'.format(
                    *python[:2], *MINIMUM_PYTHON),
                'Name a new environment: make env VENV=... PYTHON=python3.11')
        if not self.python or (self.own
                               and 'pip' not in self.probe()['installed']):
            self.create()
        self.write_stamp(asked=None)  # not up to date until all is done
        return 'Python {}.{}.{}'.format(*self.probe()['python'])

    def create(self) -> None:
        if self.env.exists() and any(self.env.iterdir()) and not self.own:
            raise SetupError(f'{self.env} is there, but holds no Python',
                             'Remove it, or name another environment.')
        self.env.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.env).free / 1e9
        if free < DISK_SPACE_GB:
            raise SetupError(f'{self.env} needs {DISK_SPACE_GB} GB, and '
                             f'{free:.1f} are free', 'Free some space.')
        self.say(f'making it with {sys.executable}')
        self.own = True
        self.write_stamp(created=True)
        self.run([sys.executable, '-m', 'venv', '--upgrade-deps', self.env],
                 'making the environment')

    def step_torch(self) -> str:
        found = self.ask(TORCH_PROBE) or {}
        plan = plan_torch(found.get('torch'), found.get('torchvision'))
        if plan:
            self.say(f'installing {" ".join(plan)}, a minute or more')
            self.install(*plan, doing='installing torch',
                         keep=('torch', ) if len(plan) == 1 else ())
            found = self.ask(TORCH_PROBE, 'torch does not load')
            if not found['torchvision']:
                raise SetupError(
                    f'torchvision does not work with torch {found["torch"]}',
                    'Install the torchvision of the same build, or name a new '
                    'environment.', found['problem'])
        self.torch = found['torch']
        return 'torch {torch}, torchvision {torchvision}'.format(
            **found) + ('' if plan else ', kept')

    def step_packages(self) -> str:
        installed = self.probe()['installed']
        present = present_stack(installed) or self.stack or 'maintained'
        if self.stack not in (None, present):
            raise SetupError(f'{self.env} holds the {present} packages',
                             'Name another environment.')
        self.stack = present
        plan = plan_stack(self.stack, installed, self.own)
        self.mmcv = plan.pop('mmcv', None)
        tests = ['-r', ROOT / 'requirements/tests.txt'] * self.tests
        self.say(f"OpenMMLab's {self.stack} packages"
                 + ' and what the tests need' * self.tests)
        # torch up to 2.2 was built for numpy 1
        numpy = 'numpy<2' if versions.release(self.torch) < (2, 3) else 'numpy'
        # setuptools, ninja and packaging build mmcv and mmfishnet.
        self.install('setuptools>=77.0.3', 'ninja', 'packaging', numpy,
                     *plan.values(), *tests, doing='installing packages')
        installed = self.probe()['installed']
        if not self.ask(CV2_PROBE) and 'opencv-python' in installed:
            # The last one installed counts; this needs no desktop's libraries.
            headless = f'opencv-python-headless=={installed["opencv-python"]}'
            self.install('--force-reinstall', '--no-deps', headless,
                         doing=f'installing {headless}')
        self.ask(CV2_PROBE, 'cv2 does not load')
        return ', '.join(plan.values()) or 'present, kept'

    def step_mmcv(self) -> str:
        installed = self.probe()['installed']
        present = [name for name in OPENMMLAB['mmcv'] if name in installed]
        if not self.mmcv:
            if self.ops_fit():
                return f'its ops work with torch {self.torch}, kept'
            name = 'onedl-mmcv' if self.stack == 'maintained' else 'mmcv'
            self.mmcv = f'{name}=={installed[present[0]]}'
        self.say(f'compiling {self.mmcv}, a minute or, with CUDA, a few')
        with tempfile.TemporaryDirectory() as wheels:
            self.run([self.python, ROOT / 'tools/build_mmcv.py', self.mmcv,
                      wheels], "compiling mmcv's ops", show=True)
            if present:
                self.run([self.python, '-m', 'pip', 'uninstall', '-y',
                          *present], 'removing mmcv')
            self.install(*Path(wheels).iterdir(), doing='installing mmcv')
        self.write_stamp(ops_torch=self.torch)
        self.ask(OPS_PROBE, "mmcv's ops do not work")
        return f'{self.mmcv}, its ops work with torch {self.torch}'

    def ops_fit(self) -> bool:
        """Whether mmcv's ops work with this torch, on a GPU if need be."""
        ops, built = self.ask(OPS_PROBE), self.read_stamp().get('ops_torch')
        return (ops is not None and built in (None, self.torch)
                and (ops['cuda'] or not self.ask(CUDA_PROBE, 'no CUDA')))

    def step_mmfishnet(self) -> str:
        self.install('--no-build-isolation', '--editable', ROOT,
                     doing='installing mmfishnet')
        self.ask(CHECK, 'The packages do not load')
        return f'{versions.__version__}, editable; everything loads'

    # ---- running things --------------------------------------------------
    @property
    def python(self) -> str | None:
        """The environment's Python, None while it has none."""
        return shutil.which('python3', path=self.env / 'bin')

    def say(self, text: str) -> None:
        number = STEPS.index(self.step) + 1
        print(f'[{number}/{len(STEPS)}] {self.step}: {text}', flush=True)

    def install(self, *args, doing: str,
                keep: tuple = ('torch', 'torchvision')) -> None:
        """Install with pip, and leave the versions of ``keep`` as they are."""
        constraints = LOG.with_name('constraints.txt')
        constraints.write_text('\n'.join(
            f'{name}==={version}'
            for name, version in self.probe()['installed'].items()
            if name in keep))
        # Python compiles what it imports; all of torch takes a minute.
        self.run([self.python, '-m', 'pip', 'install', '--no-compile',
                  f'--constraint={constraints}', *args], doing)

    def run(self, command: list, doing: str, show: bool = False) -> None:
        """Run a command; its output, or its stderr if ``show``, is logged."""
        command = [str(word) for word in command]
        with LOG.open('a+', errors='replace') as log:
            log.write(f'\n$ {shlex.join(command)}\n')
            log.flush()
            begin = log.tell()
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL,
                stdout=None if show else log, stderr=log,
                env={**os.environ, 'PIP_DISABLE_PIP_VERSION_CHECK': '1'},
            ).returncode
            log.seek(begin)
            tail = ''.join(log.readlines()[-20:])
        if status:
            raise SetupError(f'{doing} failed', advice(tail), tail)

    def ask(self, code: str, problem: str | None = None):
        """What code prints in the environment's Python; None, or an error if
        ``problem`` says what it means, where the code fails."""
        # not from here, where folders may have the names of packages
        done = subprocess.run(
            [self.python, '-c', code], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, cwd=tempfile.gettempdir(),
            env={**os.environ, 'PYTHONPATH': str(ROOT / 'tools')})
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        if problem:
            output = '\n'.join(done.stderr.splitlines()[-8:])
            raise SetupError(problem, advice(output), output)

    def probe(self) -> dict:
        return self.ask(PROBE, f'{self.python} does not run')

    # ---- what was done last time -----------------------------------------
    def read_stamp(self) -> dict:
        try:
            return json.loads((self.env / STAMP).read_text())
        except FileNotFoundError:
            return {}

    def write_stamp(self, **entries) -> None:
        (self.env / STAMP).write_text(
            json.dumps({**self.read_stamp(), **entries}, indent=1))

    def asked(self) -> str:
        """A hash of everything that decides what the set-up does."""
        files = ['setup.py', 'mmfishnet/version.py', 'tools/setup_env.py',
                 'tools/build_mmcv.py', *ROOT.glob('requirements/*.txt')]
        content = [(ROOT / name).read_text() for name in files]
        # setup.py writes a module for each config.
        configs = sorted(map(str, ROOT.glob('configs/**/*.py')))
        force = os.environ.get('FORCE_CUDA')
        text = repr((ROOT, force, self.tests, configs, content))
        return hashlib.sha256(text.encode()).hexdigest()

    def tracked(self) -> dict[str, str]:
        """The installed versions of what the set-up answers for."""
        names = {'torchvision', 'mmfishnet',
                 *sum(versions.DISTRIBUTIONS.values(), ()),
                 *(re.match(r'-*[\w-]+', line).group()
                   for path in ROOT.glob('requirements/*.txt')
                   for line in read_requirements(path.stem))}
        found = self.probe()['installed']
        return {name: found[name] for name in names & found.keys()}

    def is_up_to_date(self) -> bool:
        stamp = self.read_stamp()
        return (stamp.get('asked') == self.asked()
                and stamp.get('installed') == self.tracked()
                and self.stack in (None, present_stack(stamp['installed']))
                and all((ROOT / 'mmfishnet' / name).is_dir()
                        for name in ('.mim', 'configs')))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='environment variables: those of tools/build_mmcv.py (see its '
        '--help) and of pip.')
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
        setup.main(args.force)
    except SetupError as error:
        print(f'\nThe set-up failed in step "{setup.step}": {error}.')
        if error.output:
            print(f'\n{error.output.strip()}\n\nThe whole log: {LOG}')
        print(f'What to do: {error.todo}', flush=True)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
