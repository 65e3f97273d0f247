# Copyright (c) mmfishnet authors. All rights reserved.
"""Exported backbones are the module, at sizes other than the example's."""
import re
from pathlib import Path

import pytest
import torch

from fish import TINY
from mmfishnet.apis import export
from mmfishnet.models import FishNet
from mmfishnet.models.built import largest_error

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = (2, 3, 64, 96)
SIZES = ((1, 3, 64, 64), (3, 3, 50, 77), (1, 3, 33, 95), (1, 3, 32, 32))


@pytest.fixture(scope='module')
def fish():
    torch.manual_seed(0)
    fish = FishNet(TINY)
    fish.init_weights()
    return fish.eval()


@pytest.fixture(scope='module')
def program(fish):
    return export.export_program(fish, torch.rand(EXAMPLE))


@pytest.fixture(scope='module')
def onnx_file(program, tmp_path_factory):
    pytest.importorskip('onnxscript')
    return export.export_onnx(program,
                              tmp_path_factory.mktemp('onnx') / 'fish.onnx')


def error(run, fish):
    torch.manual_seed(1)
    with torch.no_grad():
        return max(largest_error(run(images), fish(images))
                   for images in map(torch.rand, SIZES))


@pytest.mark.slow
def test_program(fish, program):
    # A runner says eval().
    run = export.Exported(program.module().__call__).eval()
    assert error(run, fish) < 1e-5
    with pytest.raises(ValueError, match='has 1 image; give 2'):
        export.export_program(fish, torch.rand(1, 3, 64, 64))


def test_torchscript(fish, tmp_path):
    path = export.export_torchscript(fish, torch.rand(EXAMPLE),
                                     tmp_path / 'fish.pt')
    assert error(torch.jit.load(str(path)), fish) < 1e-5


def test_onnx(fish, onnx_file):
    pytest.importorskip('onnxruntime')
    assert error(export.OnnxRuntime(onnx_file, threads=1), fish) < 1e-4


def test_openvino(fish, onnx_file, tmp_path):
    pytest.importorskip('openvino')
    path = export.export_openvino(onnx_file, tmp_path / 'fish.xml')
    assert error(export.OpenVINO(path, threads=1), fish) < 1e-4

    pytest.importorskip('nncf')
    batches = [torch.rand(EXAMPLE) for _ in range(4)]
    path = export.export_openvino(onnx_file, tmp_path / 'int8.xml', batches)
    assert 1e-4 < error(export.OpenVINO(path, threads=1), fish) < 0.5
    # Its weights are bytes.
    size, quarter = (
        file.with_suffix('.bin').stat().st_size
        for file in (tmp_path / 'fish.xml', path))
    assert quarter < 0.5 * size


def test_what_is_missing(fish, monkeypatch):
    def missing(name):
        raise ImportError(f'No module named {name!r}')

    monkeypatch.setattr(export, 'import_module', missing)
    with pytest.raises(ImportError, match='pip install onnxruntime'):
        export.OnnxRuntime('fish.onnx')


def test_tool(tmp_path, call_tool):
    """It checks what it writes, and refuses weights of another network."""
    classifier = ROOT / 'configs/classification/fishnet_shapes.py'
    # As a pure-Python config has it, which says no scope.
    unscoped = tmp_path / 'unscoped.py'
    base = str(ROOT / 'configs/shapes/mask_rcnn_fishnet_shapes.py')
    unscoped.write_text(f'_base_ = {base!r}\ndefault_scope = None\n'
                        "model = dict(type='mmdet.MaskRCNN')\n")
    out = ('--formats', 'torchscript', '--out-dir', tmp_path)
    for config in (unscoped, classifier):
        result = call_tool('export', config, *out)
        assert result.returncode == 0, result.stderr
        found = re.search(
            r'backbone.pt: largest difference .* (\S+) of the larg',
            result.stdout)
        assert float(found[1]) < 1e-5

    weights = tmp_path / 'other.pth'
    torch.save(
        {f'backbone.{k}': v for k, v in FishNet(TINY).state_dict().items()},
        weights)
    result = call_tool('export', classifier, weights, *out)
    assert result.returncode == 1
    assert str(weights) in result.stderr
    assert 'Traceback' not in result.stderr
    assert 'state dict' not in result.stdout  # MMEngine's longer list
    result = call_tool('export', classifier, '--formats', 'detector',
                       '--out-dir', tmp_path)
    assert 'ImageClassifier does not go into one file' in result.stderr
