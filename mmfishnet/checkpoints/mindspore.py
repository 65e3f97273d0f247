# Copyright (c) mmfishnet authors. All rights reserved.
"""Read MindSpore's ``.ckpt``, which is a Protocol Buffers message.

``Checkpoint { repeated Value value = 1 }``, ``Value { string tag = 1; Tensor
tensor = 2 }``, ``Tensor { repeated int64 dims = 1; string tensor_type = 2;
bytes tensor_content = 3 }``: of that encoding, only varints and fields of a
given length occur.
"""
from __future__ import annotations

import math
from collections.abc import Iterator

import torch

_DTYPES = dict(
    Float16=torch.float16, Float32=torch.float32, Float64=torch.float64,
    BFloat16=torch.bfloat16, Int32=torch.int32, Int64=torch.int64)
# What MindSpore calls the tensors of a norm.
_LEAVES = dict(
    gamma='weight', beta='bias', moving_mean='running_mean',
    moving_variance='running_var')


def is_checkpoint(head: bytes) -> bool:
    """Whether a file begins as such a message: a value, in it a tag.

    Args:
        head (bytes): Its first bytes.
    """
    if head[:1] != b'\x0a':
        return False
    try:
        _, start = _varint(head, 1)
    except IndexError:
        return False
    return head[start:start + 1] == b'\x0a'


def read(path: str) -> dict[str, torch.Tensor]:
    """Read the tensors, norms' under torch's names.

    Args:
        path (str): The file.

    Returns:
        dict[str, torch.Tensor]: Those of a kind that torch has; texts and
        maps are left out.

    Raises:
        IndexError, ValueError: If the file is damaged.
    """
    with open(path, 'rb') as file:
        content = memoryview(file.read())
    found = {}
    for _, value in _fields(content):
        parts = dict(_fields(value))
        if 2 not in parts:
            continue
        dims, kind, data = [], None, b''
        for number, part in _fields(parts[2]):
            if number == 1:  # one of them, or all in a row
                dims += [part] if isinstance(part, int) else _varints(part)
            elif number == 2:
                kind = _DTYPES.get(bytes(part).decode())
            elif number == 3:
                data = part
        if kind is not None:
            name, dot, leaf = bytes(parts[1]).decode().rpartition('.')
            tensor = torch.frombuffer(bytearray(data), dtype=kind)
            # A scalar has no dims, or says 0.
            dims = dims if math.prod(dims) == len(tensor) else []
            leaf = _LEAVES.get(leaf, leaf)
            found[f'{name}{dot}{leaf}'] = tensor.reshape(dims)
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key % 8 == 2:
            start, at = at, at + value
            if at > len(message):
                raise ValueError('a field is longer than the file')
            value = message[start:at]
        elif key % 8:
            raise ValueError(f'a field of kind {key % 8}')
        yield key // 8, value


def _varints(message: memoryview) -> list[int]:
    found, at = [], 0
    while at < len(message):
        value, at = _varint(message, at)
        found.append(value)
    return found


def _varint(message, at: int) -> tuple[int, int]:
    value = shift = 0
    while message[at] & 128:
        value |= (message[at] & 127) << shift
        shift, at = shift + 7, at + 1
    return value | message[at] << shift, at + 1
