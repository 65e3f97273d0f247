# Copyright (c) mmfishnet authors. All rights reserved.
"""Convert weights: to a classifier, its backbone, or the authors' code."""
from __future__ import annotations

import os.path as osp
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from ..checkpoints.fit import check, describe, nearest_depth
from ..checkpoints.read import CheckpointError, read_checkpoint
from ..checkpoints.weights import (
    BACKBONE,
    CLASSIFIER,
    SCORE,
    find_state_dict,
    identify,
    to_official,
    translate,
)
from ..version import __version__
from ..whole_file import whole_file
from ..words import first_few
from .fishnet import FishNet
from .score import FishNetScore

TARGETS = ('mmpretrain', 'mmdet', 'official')


def convert(state_dict: Mapping[str, Tensor],
            to: str = 'mmpretrain',
            source: str = 'the state dict') -> OrderedDict[str, Tensor]:
    """Convert the weights of a FishNet; values and dtypes stay as they are.

    Args:
        state_dict (Mapping[str, Tensor]): Weights of the authors, of
            pytorchcv or of ours, or what a file holds around them.
        to (str): 'mmpretrain' for a classifier, 'mmdet' for its backbone
            alone (``backbone.``), 'official' for the authors' code. Defaults
            to 'mmpretrain'.
        source (str): Where they are from, for messages. Defaults to 'the
            state dict'.

    Returns:
        OrderedDict[str, Tensor]: The weights under their new names; other
        parts of a model of ours, such as a detector's, are left out.

    Raises:
        CheckpointError: If they are not, or not completely, those of a
            FishNet that the format knows.
        ValueError: If ``to`` is unknown.
    """
    if to not in TARGETS:
        raise ValueError(f'to={to!r} is not allowed; it should be one of '
                         f'{list(TARGETS)}.')
    state = find_state_dict(state_dict, source)
    style = identify(state)
    if style is None:
        raise CheckpointError(
            f'{source} is not a FishNet checkpoint: it holds {len(state)} '
            f'tensors, named {first_few(state)}.')
    state = OrderedDict((k, v) for k, v in translate(state, source).items()
                        if k.startswith((BACKBONE, SCORE, CLASSIFIER)))
    if style != 'mmpretrain' or to == 'official':
        _check_released(state, source)
    if to == 'mmdet':
        return OrderedDict(item for item in state.items()
                           if item[0].startswith(BACKBONE))
    missing = [part for part in (SCORE, CLASSIFIER)
               if not any(key.startswith(part) for key in state)]
    if missing:
        raise CheckpointError(
            f'{source} holds {describe(state)} without {" and ".join(missing)}'
            f' (the score layers), which the format {to} needs; only mmdet '
            'does without.')
    return to_official(state) if to == 'official' else state


def convert_file(source: str, target: str, to: str = 'mmpretrain') -> str:
    """Convert a checkpoint file, see :func:`convert`.

    Args:
        source (str): File of the authors, of pytorchcv, or of ours.
        target (str): File to write; it appears only when it is complete.
        to (str): 'mmpretrain', 'mmdet' or 'official'. The authors' code takes
            the latter by ``model.load_state_dict(file['state_dict'])``, as
            their page says; it has no ``module.`` before the names. Defaults
            to 'mmpretrain'.

    Returns:
        str: What it holds, such as 'FishNet-150'.

    Raises:
        CheckpointError: If the file is damaged, or is not, or not completely,
            a FishNet checkpoint.
        FileNotFoundError: If there is no such file.
    """
    state = convert(read_checkpoint(source), to, source)
    name = describe(translate(state, source))
    if to == 'official':
        file = dict(arch=name.replace('-', '').lower(), state_dict=state)
    else:
        meta = dict(arch=name, converted_from=osp.basename(source),
                    mmfishnet_version=__version__)
        file = dict(meta=meta, state_dict=state)
    with whole_file(target) as part:
        torch.save(file, part)
    return name


def _check_released(state: Mapping[str, Tensor], source: str) -> None:
    """Check that the weights are all those of FishNet-99, -150 or -201."""
    depth = nearest_depth(state)
    wanted = _released(depth)
    if not any(key.startswith((SCORE, CLASSIFIER)) for key in state):
        wanted = {k: v for k, v in wanted.items() if k.startswith(BACKBONE)}
    bias = state.get(f'{CLASSIFIER}bias')
    if bias is not None:  # any number of classes
        fc = torch.nn.Linear(1056, len(bias), device='meta').state_dict()
        wanted = {**wanted, **{CLASSIFIER + k: v for k, v in fc.items()}}
    check(state, wanted, source, f'FishNet-{depth} as it was released')


@cache
def _released(depth: int) -> dict[str, Tensor]:
    """Names and shapes of a released network."""
    with torch.device('meta'):
        parts = {BACKBONE: FishNet(depth, out_indices=(3, )),
                 FishNetScore.part: FishNetScore(),
                 CLASSIFIER: torch.nn.Linear(1056, 1000)}
    return {prefix + key: value for prefix, part in parts.items()
            for key, value in part.state_dict().items()}
