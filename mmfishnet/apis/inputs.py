# Copyright (c) mmfishnet authors. All rights reserved.
"""Pictures from wherever a user has them: files, folders, videos, URLs."""
from __future__ import annotations

import os.path as osp
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

import mmcv
import mmengine
import numpy as np

PICTURES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff',
            '.webp')
VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm')


@dataclass
class Picture:
    """A picture to predict on.

    Attributes:
        name (str): A name of its own among the inputs: the path below the
            folder that they have in common; with ``#000012`` behind it for
            a frame of a video.
        source (str | np.ndarray): What the model's pipeline loads.
        image (np.ndarray): RGB, (H, W, 3), uint8.
        video (str, optional): The video that it is a frame of.
        fps (float): Frames a second of the video. Defaults to 0.
    """
    name: str
    source: str | np.ndarray
    image: np.ndarray
    video: str | None = None
    fps: float = 0.


def find_inputs(inputs: str | np.ndarray | Sequence) -> list:
    """List files and URLs, in folders at any depth, each folder in order.

    Args:
        inputs (str | Path | np.ndarray | Sequence): Picture, folder, video,
            URL, array (BGR), or several of them.

    Returns:
        list[str | np.ndarray]: Paths of files, URLs and arrays.

    Raises:
        FileNotFoundError: If there is no such file, or no picture in a
            folder.
        ValueError: If a file is neither a picture nor a video.
    """
    if isinstance(inputs, (str, Path, np.ndarray)):
        inputs = [inputs]
    found = []
    for entry in inputs:
        if isinstance(entry, np.ndarray) or _is_url(entry):
            found.append(entry)
            continue
        path = Path(entry).expanduser()
        if path.is_dir():
            files = sorted(
                str(file) for file in path.rglob('*')
                if file.suffix.lower() in PICTURES + VIDEOS
                and file.is_file())
            if not files:
                raise FileNotFoundError(
                    f'no picture or video in the folder {path}; they end in '
                    f'{", ".join(PICTURES + VIDEOS)}.')
            found += files
        elif not path.is_file():
            raise FileNotFoundError(
                f'there is no file or folder {path} '
                f'(looked for {path.absolute()}).')
        elif path.suffix.lower() not in PICTURES + VIDEOS:
            raise ValueError(f'{path} should be a picture or a video and end '
                             f'in one of {", ".join(PICTURES + VIDEOS)}.')
        else:
            found.append(str(path))
    return found


def count_pictures(found: Sequence) -> int:
    """Count the pictures, frames of videos included.

    Args:
        found (Sequence): What :func:`find_inputs` returned.

    Returns:
        int: How many :func:`load_inputs` yields at most.
    """
    return sum(
        _open_video(entry).frame_cnt if _is_video(entry) else 1
        for entry in found)


def load_inputs(found: Sequence, skipped: list) -> Iterator[Picture]:
    """Load the pictures, one at a time.

    Args:
        found (Sequence): What :func:`find_inputs` returned.
        skipped (list): Gets (name, reason) of what could not be read.

    Yields:
        Picture: A picture or a frame.
    """
    paths = [
        osp.abspath(entry) for entry in found
        if isinstance(entry, str) and not _is_url(entry)
    ]
    common = osp.commonpath([osp.dirname(path) for path in paths] or ['.'])
    names = set()
    for number, entry in enumerate(found):
        if isinstance(entry, np.ndarray):
            name = f'{number:06d}.png'
        elif _is_url(entry):
            name = unquote(osp.basename(urlparse(entry).path)) or 'picture'
        else:
            name = osp.relpath(osp.abspath(entry), common)
        if name in names:  # of two hosts, say
            name = f'{number:06d}_{name}'
        names.add(name)
        if _is_video(entry):
            video = _open_video(entry)
            for i, frame in enumerate(video):
                if frame is None:
                    skipped.append((f'{name}#{i:06d}', 'could not be decoded'))
                    continue
                yield Picture(f'{name}#{i:06d}', frame, frame[..., ::-1],
                              name, video.fps)
            continue
        try:
            image = _load(entry)
        except Exception as error:  # of the file system, network or decoder
            skipped.append((name, str(error).splitlines()[0]))
            continue
        local = isinstance(entry, str) and not _is_url(entry)
        yield Picture(name, entry if local else image, image[..., ::-1])


def _is_url(entry) -> bool:
    return isinstance(entry, str) and entry.startswith(('http://', 'https://'))


def _is_video(entry) -> bool:
    return (isinstance(entry, str) and not _is_url(entry)
            and Path(entry).suffix.lower() in VIDEOS)


def _open_video(path) -> mmcv.VideoReader:
    video = mmcv.VideoReader(path)
    if not video.opened or video.frame_cnt < 1:
        raise ValueError(f'OpenCV cannot read the video {path}.')
    return video


def _load(entry) -> np.ndarray:
    """A picture as BGR, (H, W, 3), turned as its EXIF says."""
    if isinstance(entry, np.ndarray):
        if entry.dtype != np.uint8 or entry.ndim not in (2, 3):
            raise ValueError(f'the array is {entry.dtype} of shape '
                             f'{entry.shape}; it should be uint8, (H, W, 3).')
        return entry if entry.ndim == 3 else np.stack([entry] * 3, axis=-1)
    data = mmengine.fileio.get(entry)
    image = mmcv.imfrombytes(data) if data else None
    if image is None:
        raise ValueError('is empty' if not data else 'is not a picture')
    return image
