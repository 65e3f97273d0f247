# Copyright (c) mmfishnet authors. All rights reserved.
"""The wiring of the fish (Figure 2): who reads whom, at which stride.

Written once, as data. The modules, the forward pass, the channel counts, the
names in checkpoints, the analysis and the drawing are all derived from it.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

STEM_STRIDE = 4

# In the order in which they run: each reads the output of the one before it,
# the first one that of the stem.
STAGES = ('tail1', 'tail2', 'tail3', 'bridge', 'body1', 'body2', 'body3',
          'head1', 'head2', 'head3')

# What the output of a stage is concatenated with, through a transfer.
JOINS = dict(
    body1='tail2',
    body2='tail1',
    body3='stem',
    head1='body2',
    head2='body1',
    head3='bridge')

# The chosen outputs: the head's refined features at strides 4, 8 and 16, and
# at stride 32 its last concatenation.
OUTPUTS = (('head1', 'refined'), ('head2', 'refined'), ('head3', 'refined'),
           ('head3', 'output'))

DEFAULT_WIDTHS = dict(
    stem_channels=64,
    tail_channels=(128, 256, 512),
    body_reduction=(1, 2, 2),
    body_dilation=(1, 2, 4))

# How many numbers each entry of a stage table has; None for a single one.
ENTRIES = dict(
    tail=3,
    bridge=None,
    body=3,
    head=3,
    body_transfer=3,
    head_transfer=3,
    stem_channels=None,
    tail_channels=3,
    body_reduction=3,
    body_dilation=3)


@dataclass(frozen=True)
class StageSpec:
    """All numbers of a stage, derived from the wiring and a stage table.

    Attributes:
        name (str): Name of the stage, such as ``'body2'``.
        part (str): ``'tail'``, ``'bridge'``, ``'body'`` or ``'head'``.
        reads (str): The stage whose output it refines.
        joins (str, optional): The stage whose output, transferred, is
            concatenated to its own.
        blocks (int): Number of residual blocks.
        in_channels (int): Channels that it reads.
        channels (int): Channels of the refined feature.
        reduction (int): k of the channel reduction (eq. 8), 1 for none.
        dilation (int): Dilation of its 3x3 convolutions.
        transfer_blocks (int): Residual blocks of the transfer.
        joined_channels (int): Channels that it joins.
        joined_stride (int): Stride of what it joins.
        in_stride (int): Stride of the feature it reads and refines.
        out_stride (int): Stride of its output.
    """

    name: str
    part: str
    reads: str
    joins: str | None
    blocks: int
    in_channels: int
    channels: int
    reduction: int
    dilation: int
    transfer_blocks: int
    joined_channels: int
    joined_stride: int
    in_stride: int
    out_stride: int

    @property
    def out_channels(self) -> int:
        """Channels of the output, after the concatenation."""
        return self.channels + self.joined_channels


def split_name(name: str) -> tuple[str, int]:
    """Tell the part of a stage and its place there, counted from 0.

    Args:
        name (str): One of ``STAGES``.

    Returns:
        tuple[str, int]: Such as ('body', 1) for 'body2'.
    """
    part = name.rstrip('123')
    return part, int(name[len(part):] or 1) - 1


def check_arch(arch: dict, owner: str = 'FishNet') -> dict:
    """Check a stage table and fill in the authors' widths.

    Args:
        arch (dict): ``tail``, ``body``, ``head`` (residual blocks of their
            three stages), ``bridge`` (its residual blocks),
            ``body_transfer`` and ``head_transfer`` (residual blocks of the
            transfers that these stages join), and, if they differ from the
            authors', ``stem_channels`` (64), ``tail_channels`` (128, 256,
            512), ``body_reduction`` (1, 2, 2) and ``body_dilation``
            (1, 2, 4).
        owner (str): Name used in messages. Defaults to 'FishNet'.

    Returns:
        dict: The complete table.

    Raises:
        KeyError: If an entry is unknown or missing.
        TypeError: If an entry has not the form that it needs.
        ValueError: If a number is not positive.
    """
    unknown = [key for key in arch if key not in ENTRIES]
    missing = [k for k in ENTRIES if k not in arch and k not in DEFAULT_WIDTHS]
    if unknown or missing:
        raise KeyError(
            f'stage table of {owner}: ' + '; '.join(
                f'{what} {names}' for what, names in
                (('unknown entries', unknown), ('missing entries', missing))
                if names) + f'. The entries are {list(ENTRIES)}, and '
            f'{list(DEFAULT_WIDTHS)} may be left out.')
    arch = {**DEFAULT_WIDTHS, **arch}
    for key, length in ENTRIES.items():
        value = arch[key]
        numbers = [value] if length is None else value
        if not isinstance(numbers, (list, tuple)) or len(numbers) != (length
                                                                      or 1):
            raise TypeError(f'stage table of {owner}: {key}={value!r} should '
                            f'be a list of {length} positive integers.')
        for i, number in enumerate(numbers):
            where = key if length is None else f'{key}[{i}]'
            if not isinstance(number, int) or isinstance(number, bool):
                raise TypeError(f'stage table of {owner}: {where}={number!r} '
                                'should be a positive integer.')
            if number < 1:
                raise ValueError(f'stage table of {owner}: {where}={number} '
                                 'should be at least 1.')
    return {key: arch[key] for key in ENTRIES}


def lay_out(arch: dict,
              last: str = 'head3',
              join_last: bool = True,
              dilated_parts: tuple = ('body', )) -> tuple[StageSpec, ...]:
    """Derive every stage's numbers from a complete stage table.

    Args:
        arch (dict): What :func:`check_arch` returned.
        last (str): The last stage that is needed. Defaults to 'head3'.
        join_last (bool): Whether the output of that stage is needed, and not
            its refined feature alone. Defaults to True.
        dilated_parts (tuple[str]): Which of 'body' and 'head' use dilation;
            a head stage takes that of the body stage that it mirrors.
            Defaults to ('body', ).

    Returns:
        tuple[StageSpec]: The stages in the order in which they run.

    Raises:
        ValueError: If the widths do not fit together.
    """
    dilations = dict(
        body=arch['body_dilation'], head=arch['body_dilation'][::-1])
    outputs = {'stem': (arch['stem_channels'], STEM_STRIDE)}
    stages = []
    reads = 'stem'
    for name in STAGES:
        part, i = split_name(name)
        in_channels, in_stride = outputs[reads]
        reduction = arch['body_reduction'][i] if part == 'body' else 1
        if in_channels % reduction:
            raise ValueError(
                f'stage table: body_reduction[{i}]={reduction} does not '
                f'divide the {in_channels} channels that {name} reads.')
        joined_channels, joined_stride = outputs.get(JOINS.get(name), (0, 0))
        stage = StageSpec(
            name,
            part,
            reads,
            JOINS.get(name),
            blocks=arch[part] if part == 'bridge' else arch[part][i],
            in_channels=in_channels,
            channels=arch['tail_channels'][i]
            if part == 'tail' else in_channels // reduction,
            reduction=reduction,
            dilation=dilations[part][i] if part in dilated_parts else 1,
            transfer_blocks=arch[f'{part}_transfer'][i]
            if name in JOINS else 0,
            joined_channels=joined_channels,
            joined_stride=joined_stride,
            in_stride=in_stride,
            out_stride=dict(
                tail=in_stride * 2,
                bridge=in_stride,
                body=in_stride // 2,
                head=in_stride * 2)[part])
        if name == last and not join_last:
            stage = replace(
                stage,
                joins=None,
                transfer_blocks=0,
                joined_channels=0,
                out_stride=in_stride)
        outputs[name] = (stage.out_channels, stage.out_stride)
        stages.append(stage)
        reads = name
        if name == last:
            break
    return tuple(stages)
