# Copyright (c) mmfishnet authors. All rights reserved.
"""mmcv's build, on a stand-in of a few small sources; and the real ops."""
import ast
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mmcv.ops
import pytest
import torch
import torchvision

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location('build_mmcv',
                                              ROOT / 'tools/build_mmcv.py')
build_mmcv = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build_mmcv)


# ---- decisions ------------------------------------------------------------
@pytest.mark.parametrize('cuda, gpu, force, wanted', [
    (None, False, '1', False),
    ('13.0', False, '', False),
    ('13.0', False, '1', True),
    ('13.0', True, '', True),
    ('13.0', True, '0', False),
])
def test_cuda_where_there_is_a_gpu(monkeypatch, cuda, gpu, force, wanted):
    monkeypatch.setenv('FORCE_CUDA', force)
    monkeypatch.setattr('torch.version.cuda', cuda)
    monkeypatch.setattr('torch.cuda.is_available', lambda: gpu)
    monkeypatch.setattr('torch.utils.cpp_extension.CUDA_HOME', '/toolkit')
    monkeypatch.setattr(build_mmcv, 'nvcc_fits', lambda home, cuda: True)
    home, note = build_mmcv.find_cuda()
    assert home == ('/toolkit' if wanted else None)
    assert ('CUDA 13.0' if wanted else 'the CPU alone') in note


def test_nvcc_is_of_torchs_cuda(tmp_path):
    nvcc = tmp_path / 'bin/nvcc'
    nvcc.parent.mkdir()
    nvcc.write_text('#!/bin/sh\n'
                    'echo Cuda compilation tools, release 13.0, V13.0.88')
    nvcc.chmod(0o755)
    # What torch's headers include is missing.
    assert not build_mmcv.nvcc_fits(tmp_path, '13.0')
    (tmp_path / 'include').mkdir()
    (tmp_path / 'include/cusparse.h').touch()
    assert build_mmcv.nvcc_fits(tmp_path, '13.0')
    assert build_mmcv.nvcc_fits(tmp_path, '13.2')
    assert not build_mmcv.nvcc_fits(tmp_path, '12.8')
    assert not build_mmcv.nvcc_fits(None, '13.0')


@pytest.mark.parametrize('count', [1, 2, 16])
def test_layout(tmp_path, count):
    """All sources once, clashing ones apart, macros at the end, balanced."""
    names = set().union(*build_mmcv.GROUPS)
    names |= {f'cpu/op{number}' for number in range(40)}
    glue = tmp_path / 'pybind.cpp'
    glue.write_text('PYBIND11_MODULE(_ext, m) {}')
    # In an order of their own: a set's is another in each process.
    sources = [tmp_path / f'{name}.cpp' for name in sorted(names)]
    for number, source in enumerate(sources):
        source.parent.mkdir(exist_ok=True)
        source.write_text('x' * (1 + number % 7) * 1000)
    first, *units = build_mmcv.layout([*sources, glue], count)
    assert first == [glue]
    assert sorted(itertools.chain(*units)) == sorted(sources)
    assert len(units) == max(count - 1, 10)  # ten sources that clash
    for unit in units:
        keys = [build_mmcv.key(source) for source in unit]
        for group in build_mmcv.GROUPS:
            assert len(group & set(keys)) <= 1
        assert not set(keys[:-1]) & set(build_mmcv.MACROS)
    sizes = [sum(path.stat().st_size for path in unit) for unit in units]
    # in as few units as can be, those that clash leave less choice
    assert max(sizes) - min(sizes) <= (7000 if len(units) > 10 else 11000)


# ---- the build ------------------------------------------------------------
# A build backend's calls for metadata need no torch, and so take no time.
SETUP_PY = """
import sys
from glob import glob
from setuptools import Extension, find_packages, setup
commands = {}
if 'bdist_wheel' in sys.argv:
    from torch.utils.cpp_extension import BuildExtension
    commands['build_ext'] = BuildExtension
    # torch chooses the standard: mmcv's is taken out.
    flags = dict(cxx=['-std=c++17'], nvcc=['-Wall', '-std=c++17'])
    assert flags == dict(cxx=[], nvcc=['-Wall'])
setup(name='mmcv', version='9.9', packages=find_packages(), zip_safe=False,
      cmdclass=commands, ext_modules=[Extension(
          'mmcv._ext', glob('mmcv/ops/csrc/pytorch/*.cpp') +
          glob('mmcv/ops/csrc/pytorch/cpu/*.cpp'), language='c++')])
"""
# Each op calls a helper of its own, and all helpers have one name.
OP = """
static int give() {{ return {value}; }}
int {name}() {{ return give(); }}
"""
BIND = """
#include <Python.h>
int one(); int two(); int four();
static PyObject *sum(PyObject *, PyObject *) {
  return PyLong_FromLong(one() + two() + four());
}
static PyMethodDef methods[] = {
  {"sum", sum, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
static PyModuleDef module = {
  PyModuleDef_HEAD_INIT, "_ext", NULL, -1, methods};
PyMODINIT_FUNC PyInit__ext() { return PyModule_Create(&module); }
"""


@pytest.mark.slow
def test_what_does_not_compile_joined(tmp_path):
    """Its sources are compiled one by one, and the build says so."""
    # mmcv 9.9, in the folder that pip looks into
    csrc = 'mmcv/ops/csrc/pytorch'
    for name, text in {
            'PKG-INFO': 'Metadata-Version: 2.1\nName: mmcv\nVersion: 9.9\n',
            'setup.py': SETUP_PY, 'mmcv/__init__.py': '',
            f'{csrc}/pybind.cpp': BIND,
            f'{csrc}/one.cpp': OP.format(name='one', value=1),
            f'{csrc}/cpu/one.cpp': OP.format(name='two', value=2),
            f'{csrc}/cpu/four.cpp': OP.format(name='four', value=4)}.items():
        file = tmp_path / 'mmcv-9.9' / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    shutil.make_archive(tmp_path / 'mmcv-9.9', 'gztar', tmp_path, 'mmcv-9.9')
    shutil.rmtree(tmp_path / 'mmcv-9.9')

    done = subprocess.run(
        [sys.executable, ROOT / 'tools/build_mmcv.py', 'mmcv==9.9',
         tmp_path / 'wheels'], capture_output=True, text=True,
        env={**os.environ, 'PIP_NO_INDEX': '1', 'FORCE_CUDA': '0',
             'PIP_FIND_LINKS': str(tmp_path), 'MAX_JOBS': '1'})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "mmcv's ops are compiled for the CPU alone",
        '4 sources of mmcv do not compile joined; compiling them one by one']
    assert 'redefinition of' in done.stderr
    wheel, = (tmp_path / 'wheels').iterdir()
    shutil.unpack_archive(wheel, tmp_path / 'site', 'zip')
    code = 'import mmcv._ext as ext; print(ext.sum())'
    assert subprocess.check_output(
        [sys.executable, '-c', code], cwd=tmp_path / 'site', text=True,
        env={**os.environ, 'PYTHONPATH': str(tmp_path / 'site')}) == '7\n'


# ---- the real ops: the set-up compiled them for this environment ----------
def test_ops_that_mmcv_loads_are_there():
    """Every function that mmcv's Python names, in all of its modules."""
    ext = importlib.import_module('mmcv._ext')
    named = set()
    for file in Path(mmcv.ops.__file__).parent.glob('*.py'):
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and ast.unparse(
                    node.func).endswith('load_ext'):
                named |= set(ast.literal_eval(node.args[1]))
    assert len(named) > 100
    assert not [name for name in named if not hasattr(ext, name)]


def boxes(count, size=100):
    corner = torch.rand(count, 2) * size
    return torch.cat([corner, corner + 1 + torch.rand(count, 2) * size / 2], 1)


def test_nms_is_torchvisions():
    these, scores = boxes(300), torch.rand(300)
    ours = mmcv.ops.nms(these, scores, 0.4)[1]
    assert torch.equal(ours, torchvision.ops.nms(these, scores, 0.4))


@pytest.mark.parametrize('aligned', [False, True])
def test_roi_align_is_torchvisions(aligned):
    image = torch.rand(2, 3, 32, 32, requires_grad=True)
    rois = torch.cat([torch.randint(2, (20, 1)), boxes(20)], 1)
    weight = torch.rand(20, 3, 7, 7)
    results = []
    for op in (
            mmcv.ops.RoIAlign(7, 0.25, 2, aligned=aligned), lambda *args:
            torchvision.ops.roi_align(*args, 7, 0.25, 2, aligned)):
        pooled = op(image, rois)
        grad, = torch.autograd.grad((pooled * weight).sum(), image)
        results.append((pooled, grad))
    torch.testing.assert_close(*results)


def test_deformable_convolution_is_torchvisions():
    """The DCNv2 of MMDetection's configs."""
    image = torch.rand(2, 4, 9, 9, requires_grad=True)
    offset = torch.randn(2, 2 * 9, 9, 9, requires_grad=True)
    mask = torch.rand(2, 9, 9, 9, requires_grad=True)
    weight = torch.randn(6, 4, 3, 3, requires_grad=True)
    inputs = (image, offset, mask, weight)
    results = []
    for op in (lambda: mmcv.ops.modulated_deform_conv2d(
            image, offset, mask, weight, None, 1, 1),
               lambda: torchvision.ops.deform_conv2d(
                   image, offset, weight, padding=1, mask=mask)):
        out = op()
        results.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
