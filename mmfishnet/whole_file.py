# Copyright (c) mmfishnet authors. All rights reserved.
"""Files that appear whole or not at all."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[str]:
    """Write a file under another name, and give it its own when it is whole.

    A process that is killed meanwhile, or a full disk, leaves what was there
    before as it was. What is written is on the disk before it is renamed.

    Args:
        path (str | os.PathLike): The file; its folder is made if need be.

    Yields:
        str: Where to write it: ``path + '.part'``, in the same folder. It is
        removed if the block raises.
    """
    path = os.path.abspath(os.path.expanduser(path))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = f'{path}.part'
    try:
        yield part
        _to_disk(part)
        os.replace(part, path)
        _to_disk(os.path.dirname(path))
    except BaseException:
        with suppress(OSError):
            os.remove(part)
        raise


def _to_disk(path: str) -> None:
    """Have a file, or what a folder says of its files, written out."""
    with suppress(PermissionError):  # a folder on Windows
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
