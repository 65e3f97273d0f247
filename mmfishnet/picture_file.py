# Copyright (c) mmfishnet authors. All rights reserved.
"""What a picture's file holds, and its reading leaves out."""
from __future__ import annotations

import io
from contextlib import suppress

import mmcv
import numpy as np
from mmengine.fileio import get
from PIL import TiffImagePlugin

FLOATS = ('float values, which OpenCV does not read as colours; convert them '
          'to 8 bits')


def doubts(path: str, read: np.ndarray | None) -> str | None:
    """What of a picture's file is not in what the model's pipeline read.

    Args:
        path (str): The file, or a URL.
        read (np.ndarray, optional): What was read, None if nothing was.

    Returns:
        str | None: Words for the user, if there is something to say.

    Raises:
        ValueError: If nothing was read, or nonsense.
    """
    if read is not None and not path.lower().endswith(
            ('.png', '.tif', '.tiff')):
        return None
    data = get(path)
    pages = _tiff_pages(data)
    tags = pages[0] if pages else {}
    # As samples, or as the logarithms that OpenCV itself writes.
    if (3 in tags.get(339, ()) or tags.get(262) in (32844, 32845)) and (
            read is None or read.dtype == np.uint8):
        raise ValueError(FLOATS)
    if read is None:
        raise ValueError('is not a picture' if data else 'is empty')
    if len(pages) > 1 and (len(read) == tags.get(257) or len(pages) != len(
            read)):  # tifffile's loader reads all of them
        return f'{len(pages)} pages, of which the first is read'
    deep = 16 in tags.get(258, ()) or data[24:25] == b'\x10'
    if read.dtype == np.uint8 and deep:
        whole = mmcv.imfrombytes(data, 'unchanged')
        if whole is not None and 0 < whole.max() < 1 << 13:
            return (f'{int(whole.max()).bit_length()} of 16 bits in use: read '
                    'as 8 bits, nearly black')
    return None


def _tiff_pages(data: bytes) -> list[dict]:
    """The tags of each page at full size, by number."""
    pages, file = [], io.BytesIO(data)
    if data[:4] not in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
        return pages
    # Of a damaged file it may be anything; whoever reads it says so.
    with suppress(Exception):
        tags = TiffImagePlugin.ImageFileDirectory_v2(
            data[:16] if b'+' in data[2:4] else data[:8])
        while tags.next and len(pages) < 10000:
            file.seek(tags.next)
            tags.load(file)
            if not tags.get(254, 0) & 1:  # no thumbnail
                pages.append(dict(tags))
    return pages
