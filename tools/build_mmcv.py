#!/usr/bin/env python3
# Copyright (c) mmfishnet authors. All rights reserved.
"""Build a wheel of mmcv, with its ops for the torch at hand.

Nearly all of the usual compile is torch's headers, read once for each of some
eighty sources (with CUDA, some hundred and forty). Here the compiler gets few
translation units that include many sources each, and so reads the headers a
few times only. The sources, mmcv's setup.py and the library that comes out
are the same. A unit that does not compile, as may happen with another version
or compiler, is taken apart, and its sources are compiled one by one.

It needs an environment with torch, setuptools, packaging and ninja, a C++
compiler, and a network.
"""
from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path

# Sources that define the same names for different things, as onedl-mmcv 2.3.6
# and mmcv 2.1.0 have them. These names get the source's own name behind them,
SAME_NAMES = ('PreCalc', 'add', 'bilinear_interpolate_gradient')
RENAMED = ('cpu/bezier_align', 'cpu/roi_align', 'cpu/roi_align_rotated',
           'cpu/rotated_feature_align')
# and a unit holds one of each of these lines at most, as their headers clash.
CLASHES = [
    # Point, divideUP, threadsPerBlock, MAXN, devIoU, BLOCK_DIM_X
    'cuda/box_iou_quadri_cuda cuda/box_iou_rotated_cuda cuda/carafe_cuda '
    'cuda/convex_iou cuda/iou3d_cuda cuda/line_nms_cuda '
    'cuda/min_area_polygons cuda/nms_cuda cuda/nms_quadri_cuda '
    'cuda/nms_rotated_cuda',
    # Loc2Index, WARP_SIZE, MAX_SHARED_SCALAR_T
    'cuda/carafe_cuda cuda/carafe_naive_cuda cuda/chamfer_distance_cuda '
    'cuda/correlation_cuda',
    # InternalType
    'cuda/bias_act_cuda cuda/filtered_lrelu cuda/upfirdn2d_kernel',
    # check_pt_in_box3d
    'cuda/points_in_boxes_cuda cuda/roiaware_pool3d_cuda '
    'cuda/roipoint_pool3d_cuda',
    # kernel_block_t
    'cuda/sparse_maxpool cuda/sparse_reordering',
]
# Sources that define macros, such as min and max, for all that follows.
MACROS = ('cpu/psamask', 'cuda/filtered_lrelu', 'cuda/line_nms_cuda',
          'cuda/stack_ball_query_cuda')
GROUPS = [set(line.split()) for line in (*CLASHES, ' '.join(MACROS))]


def key(source: Path) -> str:
    """How ``CLASHES`` and ``MACROS`` call a source: 'cpu/roi_align'."""
    return f'{source.parent.name}/{source.stem}'


def is_glue(source: Path) -> bool:
    """Whether a source binds the ops to Python, and does nothing else."""
    return b'PYBIND11_MODULE' in source.read_bytes()


def layout(sources: list[Path], count: int) -> list[list[Path]]:
    """Share sources out among translation units.

    Args:
        sources (list[Path]): Sources of one language.
        count (int): How many units there should be; there are more where so
            many sources clash.

    Returns:
        list[list[Path]]: What each unit includes, in order. The one that
        takes longest comes first: what binds the ops to Python, alone. The
        others are of about the same size in bytes.
    """

    def clash(one, other):
        return any({key(one), key(other)} <= group for group in GROUPS)

    def size(unit):
        return sum(path.stat().st_size for path in unit)

    glue = [[source] for source in sources if is_glue(source)]
    units = [[] for _ in range(max(1, count - len(glue)))]
    tied = set.union(*GROUPS)
    for source in sorted(
            (source for source in sources if [source] not in glue),
            key=lambda path: (key(path) in tied, path.stat().st_size, path),
            reverse=True):
        free = [unit for unit in units
                if not any(clash(source, other) for other in unit)]
        if not free:
            units.append([])
            free = units[-1:]
        min(free, key=size).append(source)
    return glue + [sorted(unit, key=lambda path: (key(path) in MACROS, path))
                   for unit in units if unit]


def join(csrc: Path, count: int) -> dict[str, list[Path]]:
    """Join the sources in an unpacked mmcv.

    A source that a unit includes gets another ending, so that mmcv's setup.py
    finds the unit and not the source; headers beside it are still found.

    Args:
        csrc (Path): The folder mmcv/ops/csrc/pytorch.
        count (int): How many units of a language there should be.

    Returns:
        dict[str, list[Path]]: For each unit's name, the sources in it.
    """
    plain = [*csrc.glob('*.cpp'), *csrc.glob('cpu/*.cpp')]
    joined = {}
    for folder, sources in ((csrc, plain),
                            (csrc / 'cuda', [*csrc.glob('cuda/*.cu')])):
        for number, unit in enumerate(layout(sources, count)):
            suffix = unit[0].suffix
            # ninja takes them in the order of their names
            name = f'joined_{folder.name}_{number:02d}'
            text = ''
            if is_glue(unit[0]):  # -O3 takes a third of its time for nothing
                text += '#pragma GCC optimize("O1")\n'
            for source in unit:
                source.rename(f'{source}.inc')
                path = source.relative_to(folder).as_posix()
                names = SAME_NAMES if key(source) in RENAMED else ()
                text += ''.join([
                    *(f'#define {same} {same}_{source.stem}\n'
                      for same in names), f'#include "{path}.inc"\n',
                    *(f'#undef {same}\n' for same in names)])
            (folder / (name + suffix)).write_text(text)
            joined[name] = unit
    return joined


def take_apart(name: str, unit: list[Path], csrc: Path) -> None:
    """Give the sources of a unit back to mmcv's setup.py."""
    for path in csrc.rglob(f'{name}.*'):
        path.unlink()
    for source in unit:
        Path(f'{source}.inc').rename(source)


def failed_units(output: str, joined: dict[str, list[Path]]) -> list[str]:
    """Which units ninja could not compile, from what it printed."""
    failed = re.findall(r'^\s*FAILED: .*?(joined_\w+)\.o\b', output, re.M)
    return [name for name in joined if name in failed]


def unpin_standard(setup_py: str) -> str:
    """Take the C++ standard out of mmcv's setup.py.

    mmcv names C++17, which the headers of torch 2.14 no longer accept. To an
    extension that names none, torch gives the one its headers are written in.
    """
    return re.sub(r"(, )?'-std=c\+\+17'", '', setup_py)


def wants_cuda(cuda: str | None, gpu: bool, force: str | None) -> bool:
    """Whether the ops should be compiled with CUDA.

    Args:
        cuda (str, optional): torch's CUDA version, None for a build without.
        gpu (bool): Whether torch sees a GPU.
        force (str, optional): FORCE_CUDA as mmcv knows it: '1' also where
            torch sees no GPU, as when the one who compiles is not the one who
            runs; '0' not even where it sees one.
    """
    if not cuda or force == '0':
        return False
    return gpu or force == '1'


def nvcc_fits(home: str | Path | None, cuda: str) -> bool:
    """Whether a toolkit is of torch's CUDA, minor versions aside, and whole.

    An nvcc in /usr/local/bin makes torch take /usr/local for a toolkit.

    Args:
        home (str | Path, optional): The toolkit's folder.
        cuda (str): The CUDA version of torch, '13.0'.
    """
    try:
        printed = subprocess.run([f'{home}/bin/nvcc', '--version'],
                                 stdout=subprocess.PIPE, text=True).stdout
    except OSError:
        return False
    found = re.search(r'release (\d+)\.', printed)
    header = 'include/cusparse.h'
    return (found is not None and found.group(1) == cuda.split('.')[0]
            and any(any(Path(home).glob(pattern))
                    for pattern in (header, f'targets/*/{header}')))


def find_cuda() -> tuple[str | None, str]:
    """Find, or install with pip, the CUDA compiler for the torch at hand.

    Returns:
        tuple[str | None, str]: The toolkit's folder, None to compile for the
        CPU; and what to tell about it.
    """
    import torch
    from torch.utils.cpp_extension import CUDA_HOME
    cuda, gpu = torch.version.cuda, torch.cuda.is_available()
    if not wants_cuda(cuda, gpu, os.environ.get('FORCE_CUDA')):
        return None, "mmcv's ops are compiled for the CPU"
    home = CUDA_HOME
    if not nvcc_fits(home, cuda):
        # Current torch brings its toolkit as packages, but for the compiler.
        home = Path(sysconfig.get_path('purelib'),
                    f'nvidia/cu{cuda.split(".")[0]}')
        try:
            toolkit = metadata.version('cuda-toolkit')
        except metadata.PackageNotFoundError:
            toolkit = None
        if toolkit and not nvcc_fits(home, cuda):
            python('-m', 'pip', 'install',
                   f'cuda-toolkit[nvcc,cccl]=={toolkit}')
    if not nvcc_fits(home, cuda):
        return None, (
            "mmcv's ops are compiled for the CPU only, a detector cannot run "
            'on the GPU: there is no CUDA compiler for this torch. Install '
            f'the CUDA toolkit {cuda}, set CUDA_HOME to its folder, and run '
            'this again (the set-up with --force)')
    library = Path(home, 'lib/libcudart.so')
    packaged = library.with_name(f'libcudart.so.{cuda.split(".")[0]}')
    if packaged.exists() and not library.exists():
        library.symlink_to(packaged.name)  # the linker's name for it
    targets = os.environ.get('TORCH_CUDA_ARCH_LIST') or (
        'those of the GPUs here' if gpu else
        'all that torch knows, as there is no GPU (TORCH_CUDA_ARCH_LIST=9.0 '
        'and the like name fewer)')
    return str(home), (f"mmcv's ops are compiled for CUDA {cuda}, compute "
                       f'capabilities: {targets}')


def python(*args, cwd: Path | None = None) -> tuple[int, str]:
    """Run Python; what it prints goes to stderr and is returned as well."""
    process = subprocess.Popen([sys.executable, *map(str, args)], cwd=cwd,
                               stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT,
                               text=True,
                               errors='replace')
    lines = []
    for line in process.stdout:
        print(line, end='', file=sys.stderr, flush=True)
        lines.append(line)
    return process.wait(), ''.join(lines)


def default_jobs() -> int:
    """How many files to compile at a time: each takes up to 2 GB."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    if hasattr(os, 'sched_getaffinity'):
        cpus = len(os.sched_getaffinity(0))
    else:  # macOS
        cpus = os.cpu_count()
    return max(1, min(cpus, int(memory / 2e9)))


def set_environment(jobs: int) -> None:
    """Set what mmcv's setup.py, torch and the compilers read."""
    home, note = find_cuda()
    print(note, flush=True)
    os.environ.update(
        MMCV_WITH_OPS='1',
        MAX_JOBS=str(jobs),
        FORCE_CUDA='1' if home else '0',
        # or mmcv would ask for nvcc where there is a GPU
        **({'CUDA_HOME': home} if home else {'CUDA_VISIBLE_DEVICES': ''}))
    os.environ['PATH'] = os.pathsep.join(
        [os.path.dirname(sys.executable), os.environ['PATH']])  # ninja
    # They replace Python's own, as optimised, but without the debug
    # information that takes half as long again and makes the library twenty
    # times as large.
    for name in ('CFLAGS', 'CXXFLAGS'):
        os.environ[name] = '-O3 -DNDEBUG -g0 ' + os.environ.get(name, '')


def build(requirement: str, wheels: Path, jobs: int, plain: bool) -> None:
    """Fetch mmcv's source and build a wheel.

    Args:
        requirement (str): What to build, 'onedl-mmcv==2.3.6'.
        wheels (Path): Where the wheel goes.
        jobs (int): How many files to compile at a time.
        plain (bool): Compile one source at a time from the start.

    Raises:
        SystemExit: If there is no compiler, or pip cannot fetch the source or
            build the wheel.
    """
    compilers = [os.environ.get('CXX', ''), 'c++', 'g++', 'clang++']
    if not any(map(shutil.which, compilers)):
        sys.exit("There is no C++ compiler to compile mmcv's ops with")
    set_environment(jobs)
    with tempfile.TemporaryDirectory() as folder:
        status, _ = python('-m', 'pip', 'download', '--no-deps',
                           '--no-binary=:all:', '--no-build-isolation',
                           f'--dest={folder}', requirement)
        if status:
            sys.exit(status)
        archive, = Path(folder).iterdir()
        shutil.unpack_archive(archive, f'{folder}/source')
        source, = Path(folder, 'source').iterdir()
        setup_py = source / 'setup.py'
        setup_py.write_text(unpin_standard(setup_py.read_text()))

        csrc = source / 'mmcv/ops/csrc/pytorch'
        joined = {} if plain else join(csrc, jobs)
        while True:
            # as pip does, which would ask for the requirements first
            status, output = python('setup.py', 'bdist_wheel',
                                    f'--dist-dir={wheels}', cwd=source)
            failed = failed_units(output, joined)
            if not failed:
                sys.exit(status)
            for name in failed:
                unit = joined.pop(name)
                print(f'{len(unit)} sources of mmcv do not compile joined; '
                      'compiling them one by one', flush=True)
                take_apart(name, unit, csrc)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='environment variables: MAX_JOBS, how many files to compile at '
        'a time; FORCE_CUDA=1, with CUDA where no GPU is seen; and those of '
        'the compilers, of torch (CUDA_HOME, TORCH_CUDA_ARCH_LIST) and pip.')
    parser.add_argument('requirement', help="such as 'onedl-mmcv==2.3.6'")
    parser.add_argument('wheels', type=Path, help='folder for the wheel')
    parser.add_argument('--plain', action='store_true',
                        help='join nothing')
    args = parser.parse_args()
    jobs = int(os.environ.get('MAX_JOBS') or default_jobs())
    build(args.requirement, args.wheels.resolve(), jobs, args.plain)


if __name__ == '__main__':
    main()
