# Copyright (c) mmfishnet authors. All rights reserved.
"""Fit weights to a module, of which only the state dict is known here."""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..archs import FISHNET, FISHNEXT
from ..wiring import STAGES, check_arch, lay_out
from ..words import first_few
from .read import CheckpointError
from .weights import (
    BACKBONE,
    CLASSIFIER,
    SCORE,
    ambiguous,
    find_state_dict,
    identify,
    strip,
    translate,
    unwrap,
)

# Torch older than 0.4.1 did not save the one; deformable convolutions learn
# the other, from zero.
_OPTIONAL = re.compile(r'.*(num_batches_tracked|conv_offset\.\w+)')

# With down_sample='conv', ``down`` is the last block of a stage.
_BLOCK = re.compile(r'backbone\.(\w+)\.'
                    r'(?:(refine|transfer)\.(?:blocks\.)?(\d+)|down)\.')

# Name, stage tables, and output channels of a block over those of its 3x3
# convolution.
_NETWORKS = (('FishNet', FISHNET, 4), ('FishNeXt', FISHNEXT, 2))

# Parts of a backbone that are not built where no output needs them; the last
# is of PreActResNet.
_PARTS = (*STAGES, 'stage1', 'stage2', 'stage3', 'stage4', 'final')


def fit(checkpoint,
        wanted: Mapping[str, Tensor],
        source: str,
        kind: str = 'FishNet',
        part: str = BACKBONE,
        prefix: str | None = None,
        adapt_stem: bool = False) -> dict[str, Tensor]:
    """Get what a module wants from what a file holds, all of it or an error.

    Args:
        checkpoint (object): The content of the file.
        wanted (Mapping[str, Tensor]): The module's state dict.
        source (str): Name of the file, for messages.
        kind (str): What the module is. Defaults to 'FishNet'.
        part (str): What stands before the module's names in a whole model of
            ours. Defaults to 'backbone.'.
        prefix (str, optional): What stands before them in the file, as in
            MMEngine's ``init_cfg``; also ``part``, whatever the format.
            Defaults to None: it is found.
        adapt_stem (bool): Whether a stem of three input channels is adapted
            to another number of them. Defaults to False.

    Returns:
        dict[str, Tensor]: Weights for ``load_state_dict``. What old files may
        lack (:data:`_OPTIONAL`) may be missing.

    Raises:
        CheckpointError: If they are not all there, or not of that shape, or
            there are more; the message says which.
    """
    state = find_state_dict(checkpoint, source)
    if prefix is not None:
        state = _below(state, prefix, source)
    own = _select(translate(state, source), wanted, source)
    if not own:
        if part != BACKBONE and identify(state):
            raise CheckpointError(
                f'{source} holds a backbone alone, without the score layers '
                f'({SCORE}, {CLASSIFIER}) that a classifier has. Name it in '
                "the backbone's init_cfg.")
        raise CheckpointError(
            f'{source} is not a {kind} checkpoint: it holds {len(state)} '
            f'tensors, named {first_few(state)}.')
    if adapt_stem:
        own = _adapt_stem(own, wanted)
    check_part(own, wanted, source, kind, part)
    return {key: own[key] for key in wanted if key in own}


def _below(state: Mapping[str, Tensor], prefix: str,
           source: str) -> dict[str, Tensor]:
    """What is below a prefix, in the file's names or in ours."""
    prefix = unwrap(prefix.rstrip('.') + '.')
    found = strip(state, prefix) or strip(translate(state, source), prefix)
    if not found:
        raise CheckpointError(
            f'{source} holds nothing below prefix={prefix!r}: it holds '
            f'{len(state)} tensors, named {first_few(state)}.')
    return found


def _select(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor],
            source: str) -> dict[str, Tensor]:
    """Find below which name the wanted ones lie; nothing if few do."""
    hits = Counter(
        key[:start] for key in state
        for start in (0, *(dot.end() for dot in re.finditer(r'\.', key)))
        if key[start:] in wanted)
    most = max(hits.values(), default=0)
    best = [prefix for prefix, count in hits.items() if count == most]
    own = strip(state, best[0]) if best else {}
    if 2 * most < min(len(own), len(wanted)):
        return {}
    if len(best) > 1:
        raise ambiguous(source, best)
    return own


def _has_other_input(tensor: Tensor, wanted: Tensor) -> bool:
    """Whether a convolution's weights are for three channels, not others."""
    return (tensor.dim() == wanted.dim() == 4 and tensor.shape[1] == 3
            and tensor[:, :1].shape == wanted[:, :1].shape
            and wanted.shape[1] != 3)


def _adapt_stem(state: Mapping[str, Tensor],
                wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adapt the first convolution to another number of input channels.

    One or two share the sum of the three; more repeat them, each divided by
    how often it comes. So channels that are alike give what they gave.
    """
    state = dict(state)
    for key, tensor in state.items():
        if key.startswith('stem.') and key in wanted and _has_other_input(
                tensor, wanted[key]):
            channels = wanted[key].shape[1]
            if channels < 3:
                state[key] = tensor.sum(1, keepdim=True).expand(
                    -1, channels, -1, -1) / channels
            else:
                source = torch.arange(channels) % 3
                times = torch.bincount(source)[source]
                state[key] = tensor[:, source] / times[:, None, None]
    return state


def check_part(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor],
               source: str, kind: str, part: str) -> None:
    """:func:`check` for the weights of a module alone, see :func:`fit`."""
    state = {part + key: value for key, value in state.items()}
    wanted = {part + key: value for key, value in wanted.items()}
    name = describe(wanted) or ''
    check(state, wanted, source,
          f'the model, {name if name.startswith("Fish") else kind}')


def check(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor],
          source: str, target: str) -> None:
    """Check that weights are all that is wanted, and nothing else.

    Args:
        state (Mapping[str, Tensor]): Weights under our names.
        wanted (Mapping[str, Tensor]): Tensors of the model, by the same names.
        source (str): Where the weights are from, for messages.
        target (str): What the model is, for messages.

    Raises:
        CheckpointError: If weights are of another network, missing,
            superfluous or of another shape. Stages that were not built
            (because no output needs them) may be there.
    """
    missing = [k for k in wanted if k not in state and not _OPTIONAL.match(k)]
    unfit = [k for k in wanted
             if k in state and state[k].shape != wanted[k].shape]
    extra = _superfluous(state, wanted)
    if not missing and not unfit and not extra:
        return
    held = describe(state)
    message = (f'{source} does not fit {target}: it holds {len(state)} tensors'
               f'{f" of {held}" if held else ""}.')
    if missing:
        message += (f' {len(missing)} of {len(wanted)} tensors are missing: '
                    f'{first_few(missing)}.')
    if extra:
        message += (f' {len(extra)} tensors have no place: '
                    f'{first_few(extra)}.')
    if unfit:
        unlike = [f'{key} {tuple(state[key].shape)}, not '
                  f'{tuple(wanted[key].shape)}' for key in unfit]
        message += (f' {len(unfit)} tensors have another shape: '
                    f'{first_few(unlike)}.')
    if any(_has_other_input(state[k], wanted[k]) for k in unfit):
        message += (' With adapt_stem=True in init_cfg, weights for three '
                    'input channels are adapted to another number.')
    raise CheckpointError(message)


def describe(state: Mapping[str, Tensor]) -> str | None:
    """Tell which FishNet weights under our names are of.

    Returns:
        str | None: Such as 'FishNet-150', or 'an unknown FishNet'; None if
        there is none.
    """
    found = _count_blocks(state)
    if not found:
        return None
    conv = state.get(f'{BACKBONE}tail1.refine.0.conv3.weight')
    for name, archs, expansion in _NETWORKS:
        if conv is not None and len(conv) != expansion * conv.shape[1]:
            continue
        for depth, arch in archs.items():
            if found.items() <= _plan_blocks(arch).items():
                return f'{name}-{depth}'
    return 'an unknown FishNet'


def nearest_depth(state: Iterable[str]) -> int:
    """Tell which released FishNet, 99, 150 or 201, weights are most like."""
    found = _count_blocks(state)

    def distance(depth):
        known = _plan_blocks(FISHNET[depth])
        return sum(abs(n - known.get(part, 0)) for part, n in found.items())

    return min(FISHNET, key=distance)


def _count_blocks(state: Iterable[str]) -> Counter[tuple[str, str]]:
    """Residual blocks by stage and part."""
    found = {match.groups() for match in map(_BLOCK.match, state) if match}
    return Counter((stage, part or 'refine') for stage, part, _ in found
                   if stage in STAGES)


def _plan_blocks(arch: dict) -> dict[tuple[str, str], int]:
    return {(spec.name, part): count for spec in lay_out(check_arch(arch))
            for part, count in (('refine', spec.blocks),
                                ('transfer', spec.transfer_blocks))}


def _superfluous(state: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Weights that a model has no place for, where it should have one."""
    built = [key.split('.')[1] for key in wanted]
    skip = [f'{BACKBONE}{part}.' for part in _PARTS if part not in built]
    last = [stage for stage in STAGES if stage in built][-1:]
    if last and not any(f'.{last[0]}.transfer.' in key for key in wanted):
        skip += [f'{BACKBONE}{last[0]}.transfer.']
    return [key for key in state if key not in wanted
            and not key.startswith(tuple(skip)) and not _OPTIONAL.match(key)]
