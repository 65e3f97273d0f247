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
    """How the lists above call a source: 'cpu/roi_align'."""
    return f'{source.parent.name}/{source.stem}'


def is_glue(source: Path) -> bool:
    """Whether a source binds the ops to Python, and does nothing else."""
    return b'PYBIND11_MODULE' in source.read_bytes()


def layout(sources: list[Path], count: int) -> list[list[Path]]:
    """Share sources of one language out among some ``count`` units.

    Returns:
        list[list[Path]]: What each unit includes, in order, of about the same
        size. There are more than ``count`` where so many sources clash. What
        binds the ops to Python comes first, alone: it takes longest.
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


def unit_text(unit: list[Path], folder: Path) -> str:
    """The text of a unit, which includes its sources."""
    # -O3 takes a third of the glue's time for nothing.
    lines = ['#pragma GCC optimize("O1")'] * is_glue(unit[0])
    for source in unit:
        names = SAME_NAMES if key(source) in RENAMED else ()
        lines += [f'#define {name} {name}_{source.stem}' for name in names]
        lines += [f'#include "{source.relative_to(folder).as_posix()}.inc"']
        lines += [f'#undef {name}' for name in names]
    return '\n'.join(lines) + '\n'


def join(csrc: Path, count: int) -> dict[Path, list[Path]]:
    """Join the sources in mmcv/ops/csrc/pytorch, ``count`` units a language.

    A source that a unit includes gets another ending, so that mmcv's setup.py
    finds the unit and not the source; headers beside it are still found.

    Returns:
        dict[Path, list[Path]]: For each unit, the sources in it.
    """
    joined = {}
    for folder, sources in (
            (csrc, [*csrc.glob('*.cpp'), *csrc.glob('cpu/*.cpp')]),
            (csrc / 'cuda', [*csrc.glob('cuda/*.cu')])):
        for number, unit in enumerate(layout(sources, count)):
            # ninja takes them in the order of their names
            path = folder / f'joined_{folder.name}_{number:02d}'
            path = path.with_suffix(unit[0].suffix)
            path.write_text(unit_text(unit, folder))
            for source in unit:
                source.rename(f'{source}.inc')
            joined[path] = unit
    return joined


def take_apart(joined: dict[Path, list[Path]], output: str) -> bool:
    """Give the sources of units that ninja could not compile, from what it
    printed, back to mmcv's setup.py; whether there were any."""
    failed = re.findall(r'^\s*FAILED: .*?(joined_\w+)\.o\b', output, re.M)
    for path in [path for path in joined if path.stem in failed]:
        unit = joined.pop(path)
        print(f'{len(unit)} sources of mmcv do not compile joined; compiling '
              'them one by one', flush=True)
        path.unlink()
        for source in unit:
            Path(f'{source}.inc').rename(source)
    return bool(failed)


def nvcc_fits(home: str | Path | None, cuda: str) -> bool:
    """Whether the toolkit in a folder is of torch's CUDA ('13.0'), minor
    versions aside, and whole: with an nvcc in /usr/local/bin, torch takes
    /usr/local for one."""
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

    Wanted where torch sees a GPU; FORCE_CUDA, as mmcv knows it, is '1' where
    the one who compiles is not the one who runs, and '0' for never.

    Returns:
        tuple[str | None, str]: The toolkit's folder, None to compile for the
        CPU; and what to tell about it.
    """
    import torch
    from torch.utils.cpp_extension import CUDA_HOME
    cuda, gpu = torch.version.cuda, torch.cuda.is_available()
    wanted = os.environ.get('FORCE_CUDA') or str(int(gpu))
    if not cuda or wanted != '1':
        return None, "mmcv's ops are compiled for the CPU alone"
    home = CUDA_HOME
    if not nvcc_fits(home, cuda):
        # Current torch brings its toolkit as packages, but for the compiler.
        major = cuda.split('.')[0]
        home = Path(sysconfig.get_path('purelib'), f'nvidia/cu{major}')
        try:
            toolkit = metadata.version('cuda-toolkit')
        except metadata.PackageNotFoundError:
            toolkit = None
        if toolkit and not nvcc_fits(home, cuda):
            python('-m', 'pip', 'install',
                   f'cuda-toolkit[nvcc,cccl]=={toolkit}')
        library = home / 'lib/libcudart.so'
        packaged = library.with_name(f'libcudart.so.{major}')
        if packaged.exists() and not library.exists():
            library.symlink_to(packaged.name)  # the linker's name for it
    if not nvcc_fits(home, cuda):
        return None, (
            "mmcv's ops are compiled for the CPU alone, a detector cannot run "
            'on the GPU: there is no CUDA compiler for this torch. Install '
            f'the CUDA toolkit {cuda}, set CUDA_HOME to its folder, and run '
            'this again (the set-up with --force)')
    targets = os.environ.get('TORCH_CUDA_ARCH_LIST') or (
        'those of the GPUs here' if gpu else
        'all that torch knows, as there is no GPU (TORCH_CUDA_ARCH_LIST=9.0 '
        'and the like name fewer)')
    return str(home), (f"mmcv's ops are compiled for CUDA {cuda}, compute "
                       f'capabilities: {targets}')


def python(*args, cwd: Path | None = None, **env: str) -> tuple[int, str]:
    """Run Python; what it prints goes to stderr and is returned as well."""
    process = subprocess.Popen(
        [sys.executable, *map(str, args)], cwd=cwd, env={**os.environ, **env},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors='replace')
    lines = []
    for line in process.stdout:
        print(line, end='', file=sys.stderr, flush=True)
        lines.append(line)
    return process.wait(), ''.join(lines)


def compile_settings(jobs: int) -> dict[str, str]:
    """What mmcv's setup.py, torch and the compilers read."""
    home, note = find_cuda()
    print(note, flush=True)
    ninja = os.path.dirname(sys.executable)
    # These replace Python's own, as optimised, but without the debug
    # information that takes half as long again and makes the library twenty
    # times as large.
    flags = {name: f'-O3 -DNDEBUG -g0 {os.environ.get(name, "")}'
             for name in ('CFLAGS', 'CXXFLAGS')}
    return dict(
        flags, MMCV_WITH_OPS='1', MAX_JOBS=str(jobs),
        PATH=f'{ninja}{os.pathsep}{os.environ["PATH"]}',
        FORCE_CUDA='1' if home else '0',
        # or mmcv would ask for nvcc where there is a GPU
        **({'CUDA_HOME': home} if home else {'CUDA_VISIBLE_DEVICES': ''}))


def build(requirement: str, wheels: Path, jobs: int) -> int:
    """Fetch mmcv's source, 'onedl-mmcv==2.3.6', and build a wheel.

    Returns:
        int: The status of pip or of the compile that failed, or 0.
    """
    settings = compile_settings(jobs)
    with tempfile.TemporaryDirectory() as folder:
        status, _ = python('-m', 'pip', 'download', '--no-deps',
                           '--no-binary=:all:', '--no-build-isolation',
                           f'--dest={folder}', requirement, **settings)
        if status:
            return status
        archive, = Path(folder).iterdir()
        shutil.unpack_archive(archive, f'{folder}/source')
        source, = Path(folder, 'source').iterdir()
        # mmcv names C++17, which the headers of torch 2.14 no longer accept.
        # To an extension that names no standard, torch gives its own.
        setup_py = source / 'setup.py'
        setup_py.write_text(re.sub(r"(, )?'-std=c\+\+17'", '',
                                   setup_py.read_text()))
        joined = join(source / 'mmcv/ops/csrc/pytorch', jobs)
        while True:
            # as pip does, which would ask for the requirements first
            status, output = python('setup.py', 'bdist_wheel',
                                    f'--dist-dir={wheels}', cwd=source,
                                    **settings)
            if not status or not take_apart(joined, output):
                return status


def main() -> int | str:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='environment variables: MAX_JOBS, how many files to compile at '
        'a time; FORCE_CUDA=1, with CUDA where no GPU is seen; and those of '
        'the compilers, of torch (CUDA_HOME, TORCH_CUDA_ARCH_LIST) and pip.')
    parser.add_argument('requirement', help="such as 'onedl-mmcv==2.3.6'")
    parser.add_argument('wheels', type=Path, help='folder for the wheel')
    args = parser.parse_args()
    compilers = [os.environ.get('CXX', ''), 'c++', 'g++', 'clang++']
    if not any(map(shutil.which, compilers)):
        return "There is no C++ compiler to compile mmcv's ops with"
    cpus = (len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity')
            else os.cpu_count())  # of macOS
    # Each file takes up to 2 GB.
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    jobs = int(os.environ.get('MAX_JOBS')
               or max(1, min(cpus, int(memory / 2e9))))
    return build(args.requirement, args.wheels.resolve(), jobs)


if __name__ == '__main__':
    sys.exit(main())
