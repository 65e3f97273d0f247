#!/usr/bin/env python3
# Copyright (c) mmfishnet authors. All rights reserved.
"""Set up an environment for mmfishnet.

Makes a virtual environment, or takes one that you have, and installs torch,
OpenMMLab's packages with mmcv's ops compiled for that torch, the test tools
and mmfishnet itself (editable). What is there and works is kept; where nothing
is left to do, it ends within a second. It needs Python, a C++ compiler and a
network, nothing else.
"""
from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / '.cache'
LOG = CACHE / 'setup_env.log'
STAMP = 'mmfishnet_setup.json'
STEPS = ('environment', 'torch', 'packages', 'mmcv', 'mmfishnet', 'check')
MINIMUM_PYTHON = (3, 10)
# With the CUDA libraries that torch brings, the environment takes 6 GB.
DISK_SPACE_GB = 8


def load_version_module():
    """Load mmfishnet/version.py alone: mmfishnet itself imports mmengine."""
    spec = importlib.util.spec_from_file_location(
        'mmfishnet_version', ROOT / 'mmfishnet/version.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


versions = load_version_module()
OPENMMLAB = {
    module: names
    for module, names in versions.DISTRIBUTIONS.items() if module != 'torch'
}


class SetupError(Exception):
    """Something is in the way.

    Args:
        problem (str): What happened.
        todo (str): What to do about it.
        output (str): The end of what the failed command printed.
    """

    def __init__(self, problem: str, todo: str, output: str = '') -> None:
        super().__init__(problem)
        self.problem, self.todo, self.output = problem, todo, output


# --------------------------------------------------------------------------
# Decisions: functions of what was found, and of nothing else
# --------------------------------------------------------------------------
def read_requirements(name: str) -> list[str]:
    """The lines of requirements/NAME.txt that are not comments."""
    lines = (ROOT / f'requirements/{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def stack_requirements(stack: str) -> list[str]:
    """What the 'maintained' or 'classic' packages of OpenMMLab consist of."""
    return read_requirements(
        {'maintained': 'mminstall', 'classic': 'mminstall_classic'}[stack])


def matching_torchvision(torch: str) -> str:
    """The torchvision made for a torch 2 release, 0.28 for 2.13."""
    return f'torchvision==0.{versions.release(torch)[1] + 15}.*'


def plan_torch(torch: str | None, torchvision: str | None) -> list[str]:
    """What to install, given the versions that work (None: it does not)."""
    if torch is None or not versions.is_supported('torch', torch):
        return read_requirements('torch')
    return [] if torchvision else [matching_torchvision(torch)]


def present_stack(installed: dict[str, str]) -> str | None:
    """Which packages of OpenMMLab an environment holds, if any.

    Args:
        installed (dict[str, str]): Versions by distribution name.
    """
    found = [
        name for names in OPENMMLAB.values() for name in names
        if name in installed
    ]
    classic = [name for name in found if not name.startswith('onedl-')]
    if classic and len(classic) < len(found):
        raise SetupError(
            'The environment mixes distributions of OpenMMLab that overwrite '
            f'each other: {", ".join(found)}',
            f'Take them out (pip uninstall {" ".join(found)}) and run the '
            'set-up again, or name another environment.')
    if not found:
        return None
    return 'classic' if classic else 'maintained'


def plan_stack(stack: str, installed: dict[str, str],
               own: bool) -> dict[str, str]:
    """Which of OpenMMLab's packages to install.

    Args:
        stack (str): 'maintained' or 'classic'.
        installed (dict[str, str]): Versions by distribution name.
        own (bool): Whether the set-up made this environment. Ours follows the
            pinned versions. In anybody else's, every supported version is
            kept, and one that is not supported is theirs to change.

    Returns:
        dict[str, str]: Requirements by import name.
    """
    plan = {}
    for requirement in stack_requirements(stack):
        pin, pinned = re.match(r'([\w-]+)[=<]+(.+)', requirement).groups()
        module = next((module for module, names in OPENMMLAB.items()
                       if pin in names), None)
        if module is None:  # something that they need
            plan[pin] = requirement
            continue
        found = next((name for name in OPENMMLAB[module] if name in installed),
                     None)
        if found and not own:
            version = installed[found]
            if not versions.is_supported(module, version):
                raise SetupError(
                    f'The environment has {found} {version}; mmfishnet needs '
                    f'{versions.supported_range(module)}',
                    'Change it there, or name an environment that does not '
                    'exist yet: the set-up makes it.')
        elif installed.get(pin) != pinned:
            plan[module] = requirement
    return plan


def unpin_standard(setup_py: str) -> str:
    """Take the C++ standard out of mmcv's setup.py.

    mmcv names C++17, which the headers of torch 2.14 no longer accept. To an
    extension that names none, torch gives the one its headers are written in.
    """
    return re.sub(r"(, )?'-std=c\+\+17'", '', setup_py)


def wants_cuda(torch: dict, force: str | None) -> bool:
    """Whether mmcv's ops should be compiled with CUDA.

    Args:
        torch (dict): What ``TORCH_PROBE`` printed.
        force (str, optional): FORCE_CUDA as mmcv knows it: '1' also where
            torch sees no GPU, as when the one who compiles is not the one who
            runs; '0' not even where it sees one.
    """
    if not torch['cuda'] or force == '0':
        return False
    return torch['gpu'] or force == '1'


def nvcc_fits(nvcc: str, cuda: str) -> bool:
    """Whether a compiler is of torch's CUDA, minor versions aside.

    Args:
        nvcc (str): What ``nvcc --version`` printed.
        cuda (str): The CUDA version of torch, '13.0'.
    """
    found = re.search(r'release (\d+)\.', nvcc)
    return found is not None and found.group(1) == cuda.split('.')[0]


def compile_jobs(cpus: int, memory_gb: float) -> int:
    """How many files to compile at a time: each takes up to 2 GB."""
    return max(1, min(cpus, int(memory_gb / 2)))


ADVICE = (
    (r'No space left on device|Disk quota exceeded',
     'The disk is full: free some space.'),
    (r'name resolution|Network is unreachable|NewConnectionError|ReadTimeout|'
     r'ConnectTimeout|ConnectionReset|ProxyError|SSLError',
     'The package index cannot be reached: check the network and what '
     '`pip config list` says.'),
    (r'ensurepip is not available',
     "Python's venv module is incomplete. Debian and Ubuntu: apt-get install "
     'python3-venv.'),
    (r'externally-managed-environment',
     "This Python is the operating system's: name an environment that does "
     'not exist yet, and the set-up makes it.'),
    (r'Python\.h: No such file',
     "Python's headers are missing. Debian and Ubuntu: apt-get install "
     'python3-dev.'),
    (r'Killed signal|cc1plus: out of memory|Cannot allocate memory',
     'The memory ran out: set MAX_JOBS=1 and run it again; it goes on where '
     'it stopped.'),
    (r'No matching distribution|Could not find a version',
     'The package index is not reached (check what `pip config list` says), or'
     ' has nothing for this Python (use 3.11).'),
)


def advice(output: str) -> str:
    """What to do about a command that failed, from what it printed."""
    for pattern, text in ADVICE:
        if re.search(pattern, output):
            return text
    return 'Read the log; then run the set-up again, it goes on from here.'


def progress_of(line: str) -> str | None:
    """What a line of pip's or ninja's output says about the progress."""
    line = line.strip()
    compiled = re.match(r'\[(\d+)/(\d+)\] ', line)
    if compiled:
        return 'compiling ops: {}/{} files'.format(*compiled.groups())
    installed = re.match('Installing collected packages: (.*)', line)
    if installed:
        return f'Installing {len(installed.group(1).split(", "))} packages'
    told = re.match('(Collecting|Downloading|Building) ', line)
    return line if told else None


# --------------------------------------------------------------------------
# Questions to the environment's own Python; each answers in JSON
# --------------------------------------------------------------------------
PROBE = """
import json, re, sys, sysconfig
from importlib import metadata
installed = {}
for dist in metadata.distributions():
    name = re.sub('[-_.]+', '-', dist.metadata['Name'] or '').lower()
    installed.setdefault(name, dist.version)
print(json.dumps(dict(python=sys.version_info[:3], installed=installed,
                      site_packages=sysconfig.get_path('purelib'))))
"""

TORCH_PROBE = """
import json, torch
from torch.utils.cpp_extension import CUDA_HOME
probe = dict(torch=torch.__version__, cuda=torch.version.cuda,
             gpu=torch.cuda.is_available(), cuda_home=CUDA_HOME)
try:
    import torchvision
    torchvision.ops.nms(torch.zeros(1, 4), torch.ones(1), 0.5)
    probe.update(torchvision=torchvision.__version__)
except Exception as error:
    probe.update(torchvision=None, problem=f'{type(error).__name__}: {error}')
print(json.dumps(probe))
"""

CV2_PROBE = 'import cv2, json; print(json.dumps(cv2.__version__))'

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

CHECK = """
import json, mmdet.apis, mmpretrain.apis, mmfishnet
print(json.dumps(mmfishnet.__version__))
"""


class Setup:
    """The steps, in order, on one environment.

    Args:
        env (Path): The environment's folder.
        stack (str, optional): 'maintained' or 'classic'; None for what the
            environment holds, and 'maintained' where it holds neither.
        wheels (list[str]): Folders with wheels, besides those that pip's own
            settings name.
    """

    def __init__(self, env: Path, stack: str | None,
                 wheels: list[str]) -> None:
        self.env, self.stack, self.wheels = env, stack, wheels
        self.step = STEPS[0]
        self.hold = {}  # versions that pip must not change
        self.note = ''

    def main(self, force: bool) -> None:
        start = time.monotonic()
        if not force and self.python and self.is_up_to_date():
            print(f'{self.env} is up to date.')
            return
        CACHE.mkdir(exist_ok=True)
        LOG.write_text('')
        print(f'Setting up {self.env}; the log is {LOG}', flush=True)
        for self.step in STEPS:
            step_start = time.monotonic()
            result = getattr(self, f'step_{self.step}')()
            self.say(f'{result} ({time.monotonic() - step_start:.0f} s)')
        self.write_stamp(asked=self.asked(), installed=self.tracked())
        print(self.note + f'{self.env} is ready '
              f'({clock(time.monotonic() - start)}).')

    # ---- the steps: each returns a line that says what came out ----------
    def step_environment(self) -> str:
        self.own = self.read_stamp().get('created', False)
        if not self.python or (self.own
                               and 'pip' not in self.probe()['installed']):
            self.create()
        python = self.probe()['python']
        text = '.'.join(map(str, python))
        if tuple(python) < MINIMUM_PYTHON:
            raise SetupError(
                f'{self.env} has Python {text}, and the packages need '
                '{}.{} or later'.format(*MINIMUM_PYTHON),
                'Name another environment.')
        self.write_stamp(asked=None)  # not up to date until all is done
        return f'Python {text}' + (
            '' if self.own else ', an environment that was there before')

    def create(self) -> None:
        if self.env.exists() and any(self.env.iterdir()) and not self.own:
            raise SetupError(f'{self.env} is there, but holds no Python',
                             'Remove it, or name another environment.')
        if sys.version_info < MINIMUM_PYTHON:
            raise SetupError(
                'This is Python {}.{}, and the packages need {}.{} or '
                'later'.format(*sys.version_info[:2], *MINIMUM_PYTHON),
                'Use another: make env PYTHON=python3.11, or python3.11 '
                'tools/setup_env.py.')
        self.env.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.env).free / 1e9
        if free < DISK_SPACE_GB:
            raise SetupError(
                f'The disk of {self.env} has {free:.1f} GB free, and an '
                f'environment takes up to {DISK_SPACE_GB} GB',
                'Free some space, or name an environment on another disk.')
        self.say(f'making it with {sys.executable}')
        self.own = True
        self.write_stamp(created=True)
        self.run([sys.executable, '-m', 'venv', '--upgrade-deps', self.env],
                 'making the environment')

    def step_torch(self) -> str:
        found = self.ask(TORCH_PROBE)[0] or {}
        plan = plan_torch(found.get('torch'), found.get('torchvision'))
        if plan:
            if len(plan) == 1:
                self.hold_versions('torch')
            self.say(f'installing {" ".join(plan)}')
            self.pip('install', *plan, doing='installing torch')
            found, problem = self.ask(TORCH_PROBE)
            if not found:
                raise SetupError('torch is installed and does not load',
                                 advice(problem), problem)
            if not found['torchvision']:
                raise SetupError(
                    f'torchvision does not work with torch {found["torch"]}',
                    'Install the torchvision of the same build as this torch, '
                    'or name an environment that does not exist yet.',
                    found['problem'])
        self.hold_versions('torch', 'torchvision')
        self.torch = found
        return 'torch {torch}, torchvision {torchvision}'.format(
            **found) + ('' if plan else ', kept')

    def step_packages(self) -> str:
        installed = self.probe()['installed']
        present = present_stack(installed)
        self.stack = self.stack or present or 'maintained'
        if present and present != self.stack:
            raise SetupError(
                f'The environment holds the {present} packages of OpenMMLab',
                f'Give the {self.stack} ones an environment of their own.')
        plan = plan_stack(self.stack, installed, self.own)
        self.mmcv = plan.pop('mmcv', None)
        self.say(f"OpenMMLab's {self.stack} packages and the test tools")
        # setuptools: builds mmcv and mmfishnet
        self.pip('install', 'setuptools>=77.0.3', *plan.values(),
                 *read_requirements('tests'), doing='installing packages')
        self.repair_opencv()
        return ', '.join(plan.values()) or 'present, kept'

    def repair_opencv(self) -> None:
        """See that cv2 loads.

        opencv-python needs libraries of a desktop. opencv-python-headless
        does not; it has the same files, and the last one installed counts.
        """
        version, problem = self.ask(CV2_PROBE)
        installed = self.probe()['installed']
        if version is None and 'opencv-python' in installed:
            self.say('cv2 lacks a library; taking its headless build')
            self.pip('install', '--force-reinstall', '--no-deps',
                     f'opencv-python-headless=={installed["opencv-python"]}',
                     doing='installing opencv-python-headless')
            version, problem = self.ask(CV2_PROBE)
        if version is None:
            raise SetupError('cv2 does not load', advice(problem), problem)

    def step_mmcv(self) -> str:
        torch = self.torch['torch']
        cuda = wants_cuda(self.torch, os.environ.get('FORCE_CUDA'))
        if not self.mmcv and self.ops_fit(cuda):
            return f'its ops work with torch {torch}, kept'
        self.cuda_home = self.find_cuda_home() if cuda else None
        if cuda and not self.cuda_home:
            self.note = (
                "mmcv's ops are for the CPU only, and a detector cannot run "
                'on the GPU:\nthere is no CUDA compiler for this torch. '
                f'Install the CUDA toolkit {self.torch["cuda"]},\nset '
                'CUDA_HOME to its folder and run the set-up with --force.\n')
            if not self.mmcv and self.ops_fit(False):
                return f'its ops work with torch {torch} on the CPU, kept'
        if not self.mmcv:
            self.mmcv = self.mmcv_at_hand()
            self.say(f'its ops do not work with torch {torch}: replacing it')

        build = 'py{}.{}-torch{}-{}'.format(
            *self.probe()['python'][:2], torch,
            f'cuda{self.torch["cuda"]}' if self.cuda_home else 'cpu')
        for find in (self.built_wheel, self.offered_wheel, self.compile):
            wheel = find(build)
            if wheel is None:
                continue
            self.install_mmcv(wheel)
            self.write_stamp(ops_torch=torch)
            if self.ops_fit(bool(self.cuda_home)):
                return f'{self.mmcv}, its ops work with torch {torch}'
            self.say(f'the ops in {wheel} are not for this torch')
        raise SetupError("mmcv's ops were compiled and do not work",
                         f'Remove {CACHE} and run the set-up again.',
                         self.ask(OPS_PROBE)[1])

    def step_mmfishnet(self) -> str:
        self.pip('install', '--no-build-isolation', '--editable', ROOT,
                 doing='installing mmfishnet')
        return f'{versions.__version__}, editable'

    def step_check(self) -> str:
        answer, problem = self.ask(CHECK)
        if answer is None:
            raise SetupError('The packages do not load', advice(problem),
                             problem)
        return 'everything loads'

    # ---- mmcv ------------------------------------------------------------
    def ops_fit(self, cuda: bool) -> bool:
        """Whether mmcv's ops work with the torch at hand."""
        torch = self.torch['torch']
        if self.read_stamp().get('ops_torch', torch) != torch:
            return False
        ops = self.ask(OPS_PROBE)[0]
        return ops is not None and (ops['cuda'] or not cuda)

    def mmcv_at_hand(self) -> str:
        """The mmcv that is installed, as a requirement."""
        installed = self.probe()['installed']
        version = next(installed[name] for name in OPENMMLAB['mmcv']
                       if name in installed)
        name = 'onedl-mmcv' if self.stack == 'maintained' else 'mmcv'
        return f'{name}=={version}'

    def install_mmcv(self, wheel: Path) -> None:
        installed = self.probe()['installed']
        old = [name for name in OPENMMLAB['mmcv'] if name in installed]
        if old:
            self.run([self.python, '-m', 'pip', 'uninstall', '--yes', *old],
                     'removing mmcv')
        self.pip('install', wheel, doing='installing mmcv')

    def built_wheel(self, build: str) -> Path | None:
        """A wheel that was compiled here for the same torch."""
        name = self.mmcv.replace('-', '_').replace('==', '-')
        return next((CACHE / 'wheels' / build).glob(f'{name}-*.whl'), None)

    def offered_wheel(self, build: str) -> Path | None:
        """A wheel from a folder or an index; it may be for another torch."""
        folder = CACHE / 'offered'
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(SetupError):
            self.pip('download', '--no-deps', '--only-binary=:all:',
                     f'--dest={folder}', self.mmcv,
                     doing='looking for a wheel of mmcv')
        return next(folder.glob('*.whl'), None)

    def compile(self, build: str) -> Path:
        """Compile mmcv's ops.

        The wheel goes to a folder of ours: pip's cache does not tell which
        torch a wheel was compiled for.
        """
        compilers = [os.environ.get('CXX', ''), 'c++', 'g++', 'clang++']
        if not any(map(shutil.which, compilers)):
            raise SetupError(
                "There is no C++ compiler to compile mmcv's ops with",
                'Install one. Debian and Ubuntu: apt-get install g++.')
        self.pip('install', 'ninja', 'packaging',
                 doing='installing build tools')
        # It stays until the wheel is made: a compile that was stopped goes on.
        source = CACHE / 'build' / build / self.mmcv.replace('==', '-')
        if not source.exists():
            self.fetch_source(source)

        memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
        if hasattr(os, 'sched_getaffinity'):
            cpus = len(os.sched_getaffinity(0))
        else:  # macOS
            cpus = os.cpu_count()
        jobs = os.environ.get('MAX_JOBS') or str(
            compile_jobs(cpus, memory / 1e9))
        # They replace Python's own, as optimised, but without the debug
        # information that takes half as long again and makes the library
        # twenty times as large.
        flags = {
            name: '-O3 -DNDEBUG -g0 ' + os.environ.get(name, '')
            for name in ('CFLAGS', 'CXXFLAGS')
        }
        env = {
            'MMCV_WITH_OPS': '1',
            'MAX_JOBS': jobs,
            'FORCE_CUDA': '1' if self.cuda_home else '0',
            'PATH': f'{self.env}/bin{os.pathsep}{os.environ["PATH"]}',
            **flags,
        }
        if self.cuda_home:
            env['CUDA_HOME'] = self.cuda_home
        else:  # or mmcv would ask for nvcc where there is a GPU
            env['CUDA_VISIBLE_DEVICES'] = ''
        kind = 'with CUDA' if self.cuda_home else 'for the CPU'
        self.say(f'compiling its ops {kind}, {jobs} files at a time (for the '
                 'CPU, 2 cores take 8 to 13 minutes)')
        self.pip('wheel', '--verbose', '--no-deps', '--no-build-isolation',
                 f'--wheel-dir={CACHE / "wheels" / build}', source,
                 doing="compiling mmcv's ops", **env)
        shutil.rmtree(source)
        return self.built_wheel(build)

    def fetch_source(self, target: Path) -> None:
        """Download mmcv's source and take the C++ standard out of it."""
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            self.pip('download', '--no-deps', '--no-binary=:all:',
                     '--no-build-isolation', f'--dest={folder}', self.mmcv,
                     doing="downloading mmcv's source")
            archive, = Path(folder).iterdir()
            shutil.unpack_archive(archive, f'{folder}/source')
            source, = Path(folder, 'source').iterdir()
            setup_py = source / 'setup.py'
            setup_py.write_text(unpin_standard(setup_py.read_text()))
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)

    def find_cuda_home(self) -> str | None:
        """A CUDA toolkit for torch: the one at hand, or pip's."""
        home = self.torch['cuda_home']
        if self.has_nvcc(home):
            return home
        probe = self.probe()
        toolkit = probe['installed'].get('cuda-toolkit')
        if not toolkit:  # new torch brings one, but for the compiler
            return None
        self.pip('install', f'cuda-toolkit[nvcc,cccl]=={toolkit}',
                 doing='installing the CUDA compiler')
        major = self.torch['cuda'].split('.')[0]
        home = Path(probe['site_packages'], f'nvidia/cu{major}')
        library = home / 'lib/libcudart.so'
        if not library.exists():  # the linker's name for it
            library.symlink_to(f'libcudart.so.{major}')
        return str(home) if self.has_nvcc(home) else None

    def has_nvcc(self, cuda_home: str | Path | None) -> bool:
        try:
            printed = subprocess.run([f'{cuda_home}/bin/nvcc', '--version'],
                                     stdout=subprocess.PIPE, text=True).stdout
        except OSError:
            return False
        return nvcc_fits(printed, self.torch['cuda'])

    # ---- running things --------------------------------------------------
    @property
    def python(self) -> str | None:
        """The environment's Python, None while it has none."""
        return shutil.which('python', path=self.env / 'bin') or shutil.which(
            'python3', path=self.env / 'bin')

    def say(self, text: str) -> None:
        number = f'[{STEPS.index(self.step) + 1}/{len(STEPS)}]'
        print(f'{number} {self.step}: {text}', flush=True)

    def hold_versions(self, *names: str) -> None:
        installed = self.probe()['installed']
        self.hold = {name: installed[name] for name in names}

    def pip(self, command: str, *args, doing: str, **env: str) -> None:
        options = [f'--find-links={folder}' for folder in self.wheels]
        if self.hold:
            constraints = CACHE / 'constraints.txt'
            constraints.write_text('\n'.join(
                f'{name}==={version}' for name, version in self.hold.items()))
            options.append(f'--constraint={constraints}')
        if command == 'install':
            # Python compiles what it imports; all of torch takes a minute.
            options.append('--no-compile')
        self.run([self.python, '-m', 'pip', command, *options, *args],
                 doing, PIP_DISABLE_PIP_VERSION_CHECK='1', **env)

    def run(self, command: list, doing: str, **env: str) -> None:
        """Run a command, its output to the log and its progress to the screen.

        Raises:
            SetupError: If it fails.
        """
        command = [str(word) for word in command]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors='replace',
            env={**os.environ, **env})
        lines = queue.Queue()

        def read():
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        status, tail, line = Status(doing), deque(maxlen=20), ''
        with LOG.open('a') as log:
            log.write(f'\n$ {shlex.join(command)}\n')
            while line is not None:
                log.write(line)
                log.flush()
                tail.append(line)
                status.show(progress_of(line))
                try:
                    line = lines.get(timeout=1)
                except queue.Empty:
                    line = ''
        status.clear()
        if process.wait():
            output = ''.join(tail)
            raise SetupError(f'{doing} failed', advice(output), output)

    def ask(self, code: str) -> tuple:
        """Run code in the environment's Python; its last line is the answer.

        Returns:
            tuple: The answer and '', or None and the end of what it printed.
        """
        # not from here, where folders may have the names of packages
        done = subprocess.run(
            [self.python, '-c', code], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, cwd=tempfile.gettempdir())
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1]), ''
        with LOG.open('a') as log:
            log.write(f'\n$ {self.python} -c {code!r}\n{done.stderr}')
        problem = '\n'.join(done.stderr.splitlines()[-8:])
        return None, problem or f'Python ended with status {done.returncode}'

    def probe(self) -> dict:
        answer, problem = self.ask(PROBE)
        if answer is None:
            raise SetupError(f'{self.python} does not run',
                             f'Remove {self.env} and run the set-up again.',
                             problem)
        return answer

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
        files = [ROOT / 'setup.py', ROOT / 'mmfishnet/version.py',
                 ROOT / 'tools/setup_env.py',
                 *sorted(ROOT.glob('requirements/*.txt'))]
        # setup.py writes a module for each.
        configs = sorted(map(str, ROOT.glob('configs/**/*.py')))
        options = f'{ROOT} {os.environ.get("FORCE_CUDA")} {configs}'
        return hashlib.sha256(b'\0'.join(
            [path.read_bytes() for path in files] + [options.encode()]
        )).hexdigest()

    def tracked(self) -> dict[str, str]:
        """The installed versions of what the set-up answers for."""
        installed = self.probe()['installed']
        names = {'torchvision', 'mmfishnet',
                 *sum(versions.DISTRIBUTIONS.values(), ()),
                 *(re.match(r'[\w-]+', line).group()
                   for line in read_requirements('tests'))}
        return {name: installed[name] for name in names & installed.keys()}

    def is_up_to_date(self) -> bool:
        stamp = self.read_stamp()
        return (stamp.get('asked') == self.asked()
                and stamp.get('installed') == self.tracked()
                and self.stack in (None, present_stack(stamp['installed']))
                and (ROOT / 'mmfishnet/.mim').is_dir()
                and (ROOT / 'mmfishnet/configs').is_dir())


class Status:
    """How far a command is: a line now and then, renewed on a terminal."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.terminal = sys.stdout.isatty()
        self.start = self.shown = time.monotonic()

    def show(self, text: str | None) -> None:
        self.text = text or self.text
        now = time.monotonic()
        if now - self.shown < (1 if self.terminal else 15):
            return
        self.shown = now
        line = f'      {clock(now - self.start)}  {self.text}'[:78]
        if self.terminal:
            print(f'\r{line:<78}', end='', flush=True)
        else:
            print(line, flush=True)

    def clear(self) -> None:
        if self.terminal and self.shown > self.start:
            print(f'\r{"":<78}\r', end='', flush=True)


def clock(seconds: float) -> str:
    return '{} min {:02d} s'.format(*divmod(int(seconds), 60))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""
environment variables:
  MAX_JOBS     how many files to compile at a time (default: as many as there
               are processors, and memory for)
  FORCE_CUDA   1: compile the ops with CUDA also where no GPU is seen;
               0: without it also where one is
  CUDA_HOME, CXX and those of pip (PIP_INDEX_URL, ...) mean what they always
  mean.
""")
    parser.add_argument(
        'env', nargs='?', default=ROOT / '.venv',
        help='folder of the environment. One that does not exist is made, with'
        ' the Python that runs this. One that you have (its bin/python counts:'
        ' venv, conda, ...) is completed: a torch that works and supported '
        "versions of OpenMMLab's packages stay. Default: .venv")
    parser.add_argument(
        '--stack', choices=['maintained', 'classic'],
        help="which of OpenMMLab's packages: the maintained ones (onedl-*), "
        "or OpenMMLab's own last releases. Default: those that the "
        'environment has, and the maintained ones where it has none')
    parser.add_argument(
        '--find-links', action='append', metavar='DIR',
        help="folder with wheels, of mmcv's compiled ops say, besides those "
        "that pip's settings name; may be given several times. Default: "
        f'MMFISHNET_WHEELS, folders separated by "{os.pathsep}"')
    parser.add_argument(
        '--force', action='store_true',
        help='go through all steps, also if nothing changed')
    args = parser.parse_args()
    if args.find_links is None:
        folders = os.environ.get('MMFISHNET_WHEELS', '').split(os.pathsep)
        args.find_links = [folder for folder in folders if folder]
    for folder in args.find_links:
        if not os.path.isdir(folder):
            parser.error(f'there is no folder {folder} (--find-links or '
                         'MMFISHNET_WHEELS)')
    return args


def main() -> int:
    args = parse_args()
    setup = Setup(
        Path(os.path.abspath(args.env)), args.stack,
        [os.path.abspath(folder) for folder in args.find_links])
    try:
        setup.main(args.force)
    except SetupError as error:
        print(f'\nThe set-up failed in step "{setup.step}": {error.problem}.')
        if error.output:
            print(f'\n{error.output.strip()}\n\nThe whole log: {LOG}')
        print(f'What to do: {error.todo}', flush=True)
        return 1
    except KeyboardInterrupt:
        print('\nStopped. Run it again, and it goes on.')
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
