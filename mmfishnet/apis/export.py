# Copyright (c) mmfishnet authors. All rights reserved.
"""Backbones in other runtimes: torch.export, ONNX, OpenVINO, TorchScript.

Batch, height and width stay open: an exported backbone takes images of any
size from 32x32 up, as the module does. ONNX, ONNX Runtime, OpenVINO and NNCF
are optional packages.
"""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as symbols

from ..models.built import find_tensors, keep_modes

MIN_SIZE = 32


def need(name: str) -> ModuleType:
    """Import an optional package, or say what installs it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f'this needs the package {name!r}, which is not installed '
            f'({error}). Install it: pip install {name}') from None


@contextmanager
def exporting(model: nn.Module) -> Iterator[None]:
    """While a graph is made: without gradients, in evaluation mode, and a
    size of 1, as of the last feature of 32x32, is one like any other."""
    with (keep_modes(model, train=False), torch.no_grad(),
          symbols.patch(backed_size_oblivious=True)):
        yield


class Features(nn.Module):
    """A model of images (N, C, H, W) whose outputs are one flat tuple."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (N, C, H, W) to the model's tensors."""
        return tuple(find_tensors(self.model(images)))


def export_program(model: nn.Module,
                   images: Tensor) -> torch.export.ExportedProgram:
    """Export by ``torch.export``, with batch, height and width open.

    Args:
        model (nn.Module): Takes images and returns tensors. It is exported
            in evaluation mode.
        images (Tensor): An example (N, C, H, W), N at least 2.

    Returns:
        torch.export.ExportedProgram: Its ``module()`` takes any batch of
        images with H, W >= ``MIN_SIZE`` and returns a tuple.

    Raises:
        ValueError: If the example has a single image: torch would take a
            batch of one for a constant.
    """
    if len(images) < 2:
        raise ValueError(
            f'the example has {len(images)} image; give 2 or more, so that '
            'the batch stays open.')
    open_dims = {
        0: torch.export.Dim('batch', min=1),
        2: torch.export.Dim('height', min=MIN_SIZE),
        3: torch.export.Dim('width', min=MIN_SIZE)
    }
    with exporting(model):
        return torch.export.export(
            Features(model), (images, ), dynamic_shapes=(open_dims, ))


def export_onnx(program: torch.export.ExportedProgram,
                path: str | os.PathLike) -> Path:
    """Write an ONNX file with the weights in it.

    Args:
        program (torch.export.ExportedProgram): What :func:`export_program`
            returned.
        path (str | os.PathLike): The file, ``.onnx``.

    Returns:
        Path: The file. Its input is called 'images', its outputs 'feature0'
        and so on.
    """
    need('onnx')
    need('onnxscript')
    count = len(program.graph_signature.user_outputs)
    torch.onnx.export(
        program,
        input_names=['images'],
        output_names=[f'feature{i}' for i in range(count)],
        external_data=False,
        verbose=False).save(path)
    return Path(path)


def export_torchscript(model: nn.Module, images: Tensor,
                       path: str | os.PathLike) -> Path:
    """Write a TorchScript file, by tracing.

    Args:
        model (nn.Module): Takes images and returns tensors.
        images (Tensor): An example (N, C, H, W).
        path (str | os.PathLike): The file, ``.pt``.

    Returns:
        Path: The file; it takes batches and sizes other than the example's.
    """
    with exporting(model):
        traced = torch.jit.trace(
            Features(model), (images, ), check_trace=False)
    traced.save(str(path))
    return Path(path)


def export_openvino(onnx_file: str | os.PathLike,
                    path: str | os.PathLike,
                    calibration: Iterable[Tensor] | None = None) -> Path:
    """Write OpenVINO's files of a model that is in ONNX.

    Args:
        onnx_file (str | os.PathLike): What :func:`export_onnx` wrote.
        path (str | os.PathLike): The file, ``.xml``; the weights come to
            lie beside it.
        calibration (Iterable[Tensor], optional): Batches of images as the
            model gets them; their ranges are those to which NNCF quantises
            to 8 bits. Defaults to None: nothing is quantised.

    Returns:
        Path: The file.
    """
    openvino = need('openvino')
    model = openvino.Core().read_model(str(onnx_file))
    if calibration is not None:
        nncf = need('nncf')
        batches = [images.cpu().numpy() for images in calibration]
        model = nncf.quantize(
            model,
            nncf.Dataset(batches),
            subset_size=len(batches),
            preset=nncf.QuantizationPreset.MIXED)
    openvino.save_model(model, str(path), compress_to_fp16=False)
    return Path(path)


class Exported(nn.Module):
    """What was exported, on the CPU in the place of the module: it can be
    told to evaluate.

    Args:
        run (Callable): Images (N, C, H, W) to a sequence of features.
    """

    def __init__(self, run: Callable) -> None:
        super().__init__()
        self.run = run

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (N, C, H, W) to features, on the images' device."""
        # Copies: OpenVINO writes the next features to the same place.
        return tuple(
            torch.tensor(np.asarray(features), device=images.device)
            for features in self.run(images.cpu()))


class OnnxRuntime(Exported):
    """An ONNX file, run by ONNX Runtime.

    Args:
        path (str | os.PathLike): What :func:`export_onnx` wrote.
        threads (int): Defaults to 0, for ONNX Runtime's choice.
    """

    def __init__(self, path: str | os.PathLike, threads: int = 0) -> None:
        onnxruntime = need('onnxruntime')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider'])
        super().__init__(
            lambda images: session.run(None, dict(images=images.numpy())))


class OpenVINO(Exported):
    """A model of OpenVINO.

    Args:
        path (str | os.PathLike): What :func:`export_openvino` wrote, or an
            ONNX file.
        threads (int): Defaults to 0, for OpenVINO's choice.
    """

    def __init__(self, path: str | os.PathLike, threads: int = 0) -> None:
        options = dict(INFERENCE_PRECISION_HINT='f32')
        if threads:
            options['INFERENCE_NUM_THREADS'] = threads
        compiled = need('openvino').Core().compile_model(
            str(path), 'CPU', options)
        super().__init__(lambda images: compiled([images.numpy()]).to_tuple())
