# Copyright (c) mmfishnet authors. All rights reserved.
"""Tell what a checkpoint holds, check it, and convert it."""
from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import cache

import torch
from torch import Tensor

from ..wiring import STAGES, check_arch, lay_out
from .names import SIGNS, rename

TARGETS = ('mmpretrain', 'mmdet', 'official')

# Parts of a classifier as MMPretrain names them, by what they are here.
BACKBONE, SCORE, CLASSIFIER = 'backbone.', 'neck.layers.', 'head.fc.'

# Torch older than 0.4.1 did not save the one; deformable convolutions learn
# the other, from zero.
_OPTIONAL = re.compile(r'.*(num_batches_tracked|conv_offset\.\w+)')

# With down_sample='conv', ``down`` is the last block of a stage.
_BLOCK = re.compile(r'backbone\.(\w+)\.'
                    r'(?:(refine|transfer)\.(?:blocks\.)?(\d+)|down)\.')


class CheckpointError(ValueError):
    """A checkpoint is not what it should be; the message says how."""


def find_state_dict(checkpoint, source: str) -> dict[str, Tensor]:
    """Find the weights in what a checkpoint file holds.

    Args:
        checkpoint (object): The content of a file.
        source (str): Name of the file, for messages.

    Returns:
        dict[str, Tensor]: The weights, without the ``module.`` that
        DataParallel puts before each name.

    Raises:
        CheckpointError: If there are none.
    """
    state = checkpoint
    for wrapper in ('state_dict', 'model'):
        if isinstance(state, Mapping) and isinstance(
                state.get(wrapper), Mapping):
            state = state[wrapper]
            break
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f'{source} holds no state dict, but a {type(state).__name__}.')
    tensors = OrderedDict((key.removeprefix('module.'), value)
                          for key, value in state.items()
                          if isinstance(key, str) and torch.is_tensor(value))
    if not tensors:
        raise CheckpointError(f'{source} holds no weights; the first of its '
                              f'{len(state)} entries are {_few(state)}.')
    return tensors


def identify(keys: Iterable[str]) -> str | None:
    """Tell the format of a FishNet checkpoint.

    Args:
        keys (Iterable[str]): Names of its tensors.

    Returns:
        str | None: 'mmpretrain' (of a whole MMPretrain or MMDetection model),
        'backbone' (the same without ``backbone.``), 'official',
        'pytorchcv', or None if it is not of a FishNet.
    """
    for key in keys:
        for name, sign in SIGNS.items():
            if sign.match(key):
                return name
        if SIGNS['mmpretrain'].match(BACKBONE + key):
            return 'backbone'
    return None


def normalize(state: Mapping[str, Tensor],
              source: str) -> OrderedDict[str, Tensor]:
    """Translate a FishNet checkpoint of any format to MMPretrain's names.

    Args:
        state (Mapping[str, Tensor]): The weights.
        source (str): Where they are from, for messages.

    Returns:
        OrderedDict[str, Tensor]: Backbone, neck (the score layers) and head
        (the classifier), as far as they are there; other parts of a model
        of ours, such as a detector's, are left out.

    Raises:
        CheckpointError: If it is not a FishNet checkpoint, or if tensors of a
            foreign one are unknown.
    """
    style = identify(state)
    if style is None:
        raise CheckpointError(f'{source} is not a FishNet checkpoint: '
                              f'{list_contents(state)}.')
    if style == 'backbone':
        return OrderedDict((BACKBONE + k, v) for k, v in state.items())
    if style == 'mmpretrain':
        return OrderedDict((k, v) for k, v in state.items()
                           if k.startswith((BACKBONE, SCORE, CLASSIFIER)))
    normal, unknown = OrderedDict(), []
    for key, value in state.items():
        name = rename(key, style, 'mmpretrain')
        if name is None:
            unknown.append(key)
            continue
        if name == f'{CLASSIFIER}weight' and value.dim() == 4:
            value = value.flatten(1)  # a 1x1 convolution there
        normal[name] = value
    if unknown:
        raise CheckpointError(
            f'{source} looks like a FishNet checkpoint in the {style} format, '
            f'but {len(unknown)} of its {len(state)} tensors have names that '
            f'are unknown: {_few(unknown)}.')
    return normal


def convert(state_dict: Mapping[str, Tensor],
            to: str = 'mmpretrain',
            source: str = 'the state dict') -> OrderedDict[str, Tensor]:
    """Convert the weights of a FishNet; values and dtypes stay as they are.

    Args:
        state_dict (Mapping[str, Tensor]): Weights in any of the formats that
            :func:`identify` knows; ``module.`` before each name is dropped.
        to (str): 'mmpretrain' for a classifier, 'mmdet' for its backbone
            alone (``backbone.``), 'official' for the authors' code. Defaults
            to 'mmpretrain'.
        source (str): Where they are from, for messages. Defaults to 'the
            state dict'.

    Returns:
        OrderedDict[str, Tensor]: The weights under their new names.

    Raises:
        CheckpointError: If they are not, or not completely, those of a
            FishNet that the format knows.
        ValueError: If ``to`` is unknown.
    """
    if to not in TARGETS:
        raise ValueError(f'to={to!r} is not allowed; it should be one of '
                         f'{list(TARGETS)}.')
    state = find_state_dict(state_dict, source)
    foreign = identify(state) in ('official', 'pytorchcv')
    state = normalize(state, source)
    if foreign or to == 'official':
        check_released(state, source)
    if to == 'mmdet':
        return OrderedDict(
            (k, v) for k, v in state.items() if k.startswith(BACKBONE))
    missing = [part for part in (SCORE, CLASSIFIER)
               if not any(key.startswith(part) for key in state)]
    if missing:
        raise CheckpointError(
            f'{source} holds {describe(state)} without {" and ".join(missing)}'
            f' (the score layers), which the format {to} needs; only mmdet '
            'does without.')
    if to == 'official':
        weight = f'{CLASSIFIER}weight'
        return OrderedDict(
            (rename(k, 'mmpretrain', 'official'),
             v[..., None, None] if k == weight else v)
            for k, v in state.items())
    return state


def check_released(state: Mapping[str, Tensor], source: str) -> str:
    """Check that the weights are all those of FishNet-99, -150 or -201.

    Args:
        state (Mapping[str, Tensor]): What :func:`normalize` returned.
        source (str): Where they are from, for messages.

    Returns:
        str: 'FishNet-99', 'FishNet-150' or 'FishNet-201'.

    Raises:
        CheckpointError: If some are missing, or have another shape.
    """
    from ..models import FishNet
    found = _count_blocks(state)
    depth = min(
        FishNet.arch_settings,
        key=lambda depth: _difference(
            found, _plan_blocks(FishNet.arch_settings[depth])))
    wanted = _released(depth)
    if not any(key.startswith((SCORE, CLASSIFIER)) for key in state):
        wanted = {k: v for k, v in wanted.items() if k.startswith(BACKBONE)}
    bias = state.get(f'{CLASSIFIER}bias')
    if bias is not None:  # any number of classes
        fc = torch.nn.Linear(1056, len(bias), device='meta').state_dict()
        wanted = {**wanted, **{CLASSIFIER + k: v for k, v in fc.items()}}
    check(state, wanted, source, f'FishNet-{depth} as it was released')
    return f'FishNet-{depth}'


@cache
def _released(depth: int) -> dict[str, Tensor]:
    """Names and shapes of a released network."""
    from ..models import FishNet, FishNetScore
    with torch.device('meta'):
        parts = {
            BACKBONE: FishNet(depth, out_indices=(3, )),
            'neck.': FishNetScore(),
            CLASSIFIER: torch.nn.Linear(1056, 1000)
        }
    return {
        prefix + key: value
        for prefix, part in parts.items()
        for key, value in part.state_dict().items()
    }


def check(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor],
          source: str, target: str) -> None:
    """Check that weights are all that a model wants, and nothing else.

    Args:
        state (Mapping[str, Tensor]): What :func:`normalize` returned, or a
            part of it.
        wanted (Mapping[str, Tensor]): Tensors of the model, by the same names.
        source (str): Where the weights are from, for messages.
        target (str): What the model is, for messages.

    Raises:
        CheckpointError: If the weights are of another network, or some of
            them are missing, superfluous or of another shape. Stages that
            were not built (because no output needs them) may be there.
    """
    missing = [k for k in wanted if k not in state and not _OPTIONAL.match(k)]
    unfit = [k for k in wanted
             if k in state and state[k].shape != wanted[k].shape]
    extra = _superfluous(state, wanted)
    if not missing and not unfit and not extra:
        return
    held = describe(state)
    message = f'{source} does not fit {target}:'
    if held != describe(wanted) and _is_known(held):
        message += f' it holds {held}.'
    else:
        message += f' it holds {len(state)} tensors of {held}.'
    if missing:
        message += (f' {len(missing)} of {len(wanted)} tensors are missing: '
                    f'{_few(missing)}.')
    if extra:
        message += (f' {len(extra)} tensors have no place: {_few(extra)}.')
    if unfit:
        message += f' {len(unfit)} tensors have another shape: ' + _few(
            f'{k} {tuple(state[k].shape)}, not {tuple(wanted[k].shape)}'
            for k in unfit) + '.'
    raise CheckpointError(message)


def describe(state: Mapping[str, Tensor]) -> str:
    """Tell which network weights are of.

    Args:
        state (Mapping[str, Tensor]): Weights under MMPretrain's names.

    Returns:
        str: Such as 'FishNet-150', or 'an unknown FishNet (2-4-8 ...)'.
    """
    from ..models import FishNet, FishNeXt
    found = _count_blocks(state)
    if not found:
        return 'no backbone'
    conv = state.get(f'{BACKBONE}tail1.refine.0.conv3.weight')
    for model in (FishNet, FishNeXt):
        if conv is not None and len(conv) != model.expansion * conv.shape[1]:
            continue
        for depth, arch in model.arch_settings.items():
            if not _difference(found, _plan_blocks(arch)):
                return f'{model.__name__}-{depth}'
    blocks = ', '.join(
        f'{stage} {blocks}' + (f'+{transfers}' if transfers else '')
        for stage, (blocks, transfers) in found.items())
    return f'an unknown FishNet (residual blocks: {blocks})'


def list_contents(state: Mapping[str, Tensor]) -> str:
    """Tell how many tensors there are, and the names of the first.

    Args:
        state (Mapping[str, Tensor]): The weights.
    """
    return f'it holds {len(state)} tensors, named {_few(state)}'


def _is_known(description: str) -> bool:
    return description.startswith('Fish')


def _count_blocks(state: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Residual blocks of each stage, and of the transfer that it joins."""
    found = {}
    for key in state:
        match = _BLOCK.match(key)
        if match and match[1] in STAGES:
            parts = found.setdefault(match[1], dict(refine=set(),
                                                    transfer=set()))
            parts[match[2] or 'refine'].add(match[3])
    return {
        stage: tuple(len(numbers) for numbers in found[stage].values())
        for stage in STAGES if stage in found
    }


def _plan_blocks(arch: dict) -> dict[str, tuple[int, int]]:
    return {
        spec.name: (spec.blocks, spec.transfer_blocks)
        for spec in lay_out(check_arch(arch))
    }


def _difference(found: dict, known: dict) -> int:
    """How far block counts are from those of a known network."""
    last = list(found)[-1] if found else None
    return sum(
        abs(blocks - known[stage][0])
        # The last stage that was built may join nothing.
        + (abs(transfers - known[stage][1])
           if transfers or stage != last else 0)
        for stage, (blocks, transfers) in found.items())


def _superfluous(state: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Weights that a model has no place for, where it should have one."""
    wanted = set(wanted)
    parts = {key.split('.')[0] for key in wanted}
    stages = [s for s in STAGES
              if any(k.startswith(f'{BACKBONE}{s}.') for k in wanted)]
    absent = [s for s in STAGES if s not in stages]
    skip = tuple(f'{BACKBONE}{s}.' for s in absent)
    if stages and not any(
            k.startswith(f'{BACKBONE}{stages[-1]}.transfer.') for k in wanted):
        skip += (f'{BACKBONE}{stages[-1]}.transfer.', )
    return [
        key for key in state if key not in wanted
        and key.split('.')[0] in parts and not key.startswith(skip)
        and not _OPTIONAL.match(key)
    ]


def _few(names: Iterable, most: int = 4) -> str:
    names = [str(name) for name in names]
    return ', '.join(names[:most]) + (', ...' if len(names) > most else '')


