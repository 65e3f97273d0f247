# Copyright (c) mmfishnet authors. All rights reserved.
"""What one and the same weight is called here, by the authors, by pytorchcv.

Here means a classifier of MMPretrain: ``backbone.``, ``neck.`` and ``head.``.
"""
from __future__ import annotations

import re
from collections.abc import Iterator

from ..wiring import JOINS, STAGES, split_name

FORMATS = ('mmpretrain', 'official', 'pytorchcv')

# What names of each format have, and no other network's, behind whatever a
# larger model or a wrapper puts before them.
_OUTER = r'((?:[^.]+\.)*?)'
SIGNS = dict(
    mmpretrain=re.compile(_OUTER + r'(?:tail|body|head)\d\.refine\.'),
    official=re.compile(_OUTER + r'fish\.fish\.\d+\.'),
    pytorchcv=re.compile(
        _OUTER + r'features\.hg\.(?:down|skip|up)\d?_seq\.'))


def _layers() -> Iterator[tuple]:
    """The layers that are in no residual block."""
    for i in range(3):
        for j, leaf in enumerate(('conv', 'bn')):
            yield (f'backbone.stem.{3 * i + j}', f'conv{i + 1}.{j}',
                   f'features.init_block.conv{i + 1}.{leaf}')
    for ours, official, theirs in (
        ('squeeze.0', '0.0', 'conv1.bn'), ('squeeze.2', '0.2', 'conv1.conv'),
        ('squeeze.3', '0.3', 'conv2.bn'), ('expand', '1', 'conv2.conv'),
        ('gate.0', '3.0.0', 'se.bn'), ('gate.3', '3.0.3', 'se.conv1'),
        ('gate.5', '3.0.5', 'se.conv2')):
        yield (f'backbone.bridge.refine.{ours}', f'fish.fish.3.{official}',
               f'features.hg.skip1_seq.unit4.{theirs}')
    for i, theirs in ((0, 'conv1.bn'), (2, 'conv1.conv'), (3, 'preactiv.bn')):
        yield (f'neck.layers.{i}', f'fish.fish.9.3.{i}',
               f'features.final_block.{theirs}')
    yield 'head.fc', 'fish.fish.9.4.1', 'output.final_conv'


def _sequences() -> Iterator[tuple]:
    """The sequences of residual blocks."""
    hourglass = dict(tail='down1', body='up', head='down2')
    skips = dict(body='skip1', head='skip2')
    for i, name in enumerate(STAGES):
        part, index = split_name(name)
        if part == 'bridge':
            yield (f'backbone.{name}.refine.blocks.', f'fish.fish.{i}.2.',
                   'features.hg.skip1_seq.unit4.blocks.block')
            continue
        yield (
            f'backbone.{name}.refine.', f'fish.fish.{i}.0.',
            f'features.hg.{hourglass[part]}_seq.unit{index + 1}.blocks.block')
        if name in JOINS:
            # pytorchcv counts them by what they read, which mirrors who joins.
            yield (
                f'backbone.{name}.transfer.', f'fish.fish.{i}.1.',
                f'features.hg.{skips[part]}_seq.unit{3 - index}.blocks.block')


def _block_layers() -> Iterator[tuple]:
    """The layers in a residual block."""
    for i in (1, 2, 3):
        yield f'norm{i}', f'bn{i}', f'body.conv{i}.bn'
        yield f'conv{i}', f'conv{i}', f'body.conv{i}.conv'
    yield 'shortcut.0', 'shortcut.0', 'identity_conv.bn'
    yield 'shortcut.2', 'shortcut.2', 'identity_conv.conv'


def _by_name(names: Iterator[tuple]) -> dict[str, dict[str, dict]]:
    """By format and name in it, the names in all formats."""
    names = [dict(zip(FORMATS, found)) for found in names]
    return {f: {found[f]: found for found in names} for f in FORMATS}


LAYERS = _by_name(_layers())
SEQUENCES = _by_name(_sequences())
BLOCK_LAYERS = _by_name(_block_layers())
FIRST_BLOCK = dict(mmpretrain=0, official=0, pytorchcv=1)


def rename(key: str, source: str, target: str) -> str | None:
    """Translate the name of a tensor.

    Args:
        key (str): Name in the format ``source``.
        source, target (str): One of :data:`FORMATS`.

    Returns:
        str | None: Name in the format ``target``; None if ``key`` is not the
        name of any tensor of a FishNet in the format ``source``.
    """
    layer, _, leaf = key.rpartition('.')
    if layer in LAYERS[source]:
        return f'{LAYERS[source][layer][target]}.{leaf}'
    for prefix, sequence in SEQUENCES[source].items():
        if not layer.startswith(prefix):
            continue
        number, _, layer = layer[len(prefix):].partition('.')
        if not number.isdecimal() or layer not in BLOCK_LAYERS[source]:
            return None
        number = int(number) - FIRST_BLOCK[source] + FIRST_BLOCK[target]
        return (f'{sequence[target]}{number}.'
                f'{BLOCK_LAYERS[source][layer][target]}.{leaf}')
    return None
