# Copyright (c) mmfishnet authors. All rights reserved.
"""Find weights in what a file holds, and give them our names.

*Our names* are those of an MMPretrain classifier, ``backbone.``,
``neck.layers.`` and ``head.fc.``, whatever else is in the dict. The *source*
of weights is what messages call it, such as the name of a file.
"""
from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from ..words import first_few
from .layouts import to_last
from .names import SIGNS, rename
from .read import CheckpointError

# Parts of a classifier as MMPretrain names them, by what they are here.
BACKBONE, SCORE, CLASSIFIER = 'backbone.', 'neck.layers.', 'head.fc.'

# What wrappers of modules add to names, anywhere: DataParallel,
# torch.compile, FSDP and its activation checkpointing.
_WRAPPERS = re.compile(r'(?<![^.])(?:module|_orig_mod|_fsdp_wrapped_module|'
                       r'_checkpoint_wrapped_module)\.')


def unwrap(name: str) -> str:
    """Take what wrappers of modules add out of a name."""
    return _WRAPPERS.sub('', name)


def strip(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What is below a prefix, without it."""
    return {key[len(prefix):]: value for key, value in state.items()
            if key.startswith(prefix)}


def find_state_dict(checkpoint, source: str) -> OrderedDict[str, Tensor]:
    """Find the weights in what a checkpoint file holds.

    They may be under any key, at any depth: ``state_dict``, ``model``,
    ``state_dict_ema``, ... Where there are several, those of a FishNet come
    first, then those that are no moving average ('ema'), then the largest.

    Returns:
        OrderedDict[str, Tensor]: The weights, without what DataParallel,
        torch.compile and FSDP put into their names.

    Raises:
        CheckpointError: If there are none.
    """
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f'{source} holds no state dict, but a '
                              f'{type(checkpoint).__name__}.')
    found = list(_state_dicts(checkpoint))
    if not found:
        raise CheckpointError(
            f'{source} holds no weights; the first of its {len(checkpoint)} '
            f'entries are {first_few(checkpoint)}.')
    return max(
        found,
        key=lambda item: (identify(item[1]) is not None, 'ema' not in item[0],
                          len(item[1])))[1]


def _state_dicts(content: Mapping, path: str = ''
                 ) -> Iterator[tuple[str, OrderedDict[str, Tensor]]]:
    """All dicts of tensors in nested dicts, and where they are."""
    tensors = OrderedDict(
        (unwrap(key), value) for key, value in content.items()
        if isinstance(key, str) and torch.is_tensor(value))
    if tensors:
        yield path, tensors
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _state_dicts(value, f'{path}.{key}'.lower())


def identify(keys: Iterable[str]) -> str | None:
    """Tell the format of a FishNet checkpoint by the names of its tensors.

    Returns:
        str | None: 'mmpretrain' (our names, also of another whole model or
        of a backbone alone), 'official', 'pytorchcv', or None if it is not
        of a FishNet.
    """
    return next((name for key in keys for name, sign in SIGNS.items()
                 if sign.match(key)), None)


def prefixes(keys: Iterable[str], style: str) -> set[str]:
    """What stands before the names of the FishNets in a file."""
    return {match[1] for match in map(SIGNS[style].match, keys) if match}


def translate(state: Mapping[str, Tensor],
              source: str) -> OrderedDict[str, Tensor]:
    """Give the weights of a FishNet our names.

    Args:
        state (Mapping[str, Tensor]): What :func:`find_state_dict` returned.
        source (str): Where the weights are from, for messages.

    Returns:
        OrderedDict[str, Tensor]: Those in the authors' or pytorchcv's format
        under our names; those in ours with ``backbone.`` before the
        backbone's and nothing before that; any other network's as they are.

    Raises:
        CheckpointError: If tensors of a foreign file are unknown, or if there
            are several FishNets.
    """
    style = identify(state)
    if style is None:
        return OrderedDict(state)
    outer, *more = found = prefixes(state, style)
    if more:
        raise ambiguous(source, found)
    if style == 'mmpretrain':
        # 'backbone.' for a whole model, 'model.backbone.' for one in another;
        # '' or 'model.' for a backbone alone.
        rest = outer.removesuffix(BACKBONE)
        new = BACKBONE if rest == outer else ''
        return OrderedDict(
            (new + key.removeprefix(rest) if key.startswith(rest) else key,
             value) for key, value in state.items())
    # Without what is of a larger model.
    state = strip(state, outer)
    unknown = []
    if style == 'official':
        state, unknown = to_last(state)
    ours = OrderedDict()
    for key, value in state.items():
        name = rename(key, style, 'mmpretrain')
        if name is None:
            unknown.append(key)
        elif name == f'{CLASSIFIER}weight' and value.dim() == 4:
            ours[name] = value.flatten(1)  # a 1x1 convolution there
        else:
            ours[name] = value
    if unknown:
        raise CheckpointError(
            f'{source} looks like a FishNet checkpoint in the {style} format, '
            f'but {len(unknown)} of its {len(ours) + len(unknown)} tensors '
            'have names that are unknown: '
            f'{first_few([outer + key for key in unknown])}.')
    return ours


def to_official(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Give the weights of a classifier the authors' names and shapes."""
    weight = f'{CLASSIFIER}weight'
    return OrderedDict((rename(key, 'mmpretrain', 'official'),
                        value[..., None, None] if key == weight else value)
                       for key, value in state.items())


def ambiguous(source: str, prefixes: Iterable[str]) -> CheckpointError:
    """The error for a file that holds several networks of one kind."""
    return CheckpointError(
        f'{source} holds several such networks, below '
        f'{" and ".join(map(repr, sorted(prefixes)))}. Say which one is meant '
        'by prefix= in init_cfg.')
