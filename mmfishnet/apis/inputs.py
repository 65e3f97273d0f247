# Copyright (c) mmfishnet authors. All rights reserved.
"""Pictures from wherever a user has them: files, folders, videos, URLs."""
from __future__ import annotations

import os
import os.path as osp
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

import mmcv
import numpy as np

PICTURES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff',
            '.webp')
VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm')
# What predict leaves: its drawings are nobody's input.
RESULTS = ('predictions.json', 'areas.csv')
DRAWINGS = ('pictures', 'maps')


@dataclass
class Picture:
    """A picture to predict on.

    Attributes:
        name (str): A name of its own among the inputs: the path below the
            folder that they have in common; with ``#000012`` behind it for
            a frame of a video.
        source (str | np.ndarray): Path, URL, or BGR, (H, W, 3), uint8.
        image (np.ndarray): RGB, (H, W, 3), uint8, as the model's pipeline
            read it.
        video (str, optional): The video that it is a frame of.
        fps (float): Frames a second of the video. Defaults to 0.
    """
    name: str
    source: str | np.ndarray
    image: np.ndarray | None = None
    video: str | None = None
    fps: float = 0.


def find_inputs(inputs: str | np.ndarray | Sequence,
                out_dir: str | None = None) -> list:
    """Find the pictures and videos that are meant.

    Folders are searched at any depth, through links, but not what predicting
    left there before.

    Args:
        inputs (str | Path | np.ndarray | Sequence): Picture, folder, video,
            URL, array (BGR, uint8), or several of them.
        out_dir (str, optional): Where results go, which is not searched
            either. Defaults to None.

    Returns:
        list[str | np.ndarray]: Paths of files, URLs and arrays.

    Raises:
        FileNotFoundError: If there is no such file, or no picture in a
            folder.
        ValueError: If a file is neither a picture nor a video.
    """
    if isinstance(inputs, (str, Path, np.ndarray)):
        inputs = [inputs]
    found, kinds = [], ', '.join(PICTURES + VIDEOS)
    for entry in inputs:
        if isinstance(entry, np.ndarray) or _is_url(entry):
            found.append(entry)
            continue
        path = Path(entry).expanduser()
        if path.is_dir():
            below = _search(str(path), out_dir and osp.realpath(out_dir))
            if not below and not (path / RESULTS[0]).exists():
                raise FileNotFoundError(
                    f'no picture or video in the folder {path}; they end in '
                    f'{kinds}.')
            found += below
            continue
        if not path.is_file():
            raise FileNotFoundError(
                f'there is no file or folder {path} '
                f'(looked for {path.absolute()}).')
        if path.suffix.lower() not in PICTURES + VIDEOS:
            raise ValueError(f'{path} should be a picture or a video and end '
                             f'in one of {kinds}.')
        found.append(str(path))
    if not found:
        raise FileNotFoundError('no picture but those that predicting left.')
    return found


def _search(folder: str, out_dir: str | None) -> list[str]:
    found, seen = [], {out_dir}
    for root, folders, files in os.walk(folder, followlinks=True):
        if osp.realpath(root) in seen:  # the results, or a circle of links
            folders.clear()
            continue
        seen.add(osp.realpath(root))
        ours = set(RESULTS) & set(files)
        folders[:] = [name for name in folders if not name.startswith('.')
                      and not (ours and name in DRAWINGS)]
        found += [osp.join(root, name) for name in files
                  if not name.startswith('.')
                  and name.lower().endswith(PICTURES + VIDEOS)]
    return sorted(found)


def load_inputs(found: Sequence, skipped: list,
                notes: list) -> Iterator[Picture]:
    """Name the pictures, and read the frames of videos, one at a time.

    Args:
        found (Sequence): What :func:`find_inputs` returned.
        skipped, notes (list): Get (name, words) of videos that cannot be
            read, and of those that end too early.

    Yields:
        Picture: A picture, not read yet, or a frame.
    """
    paths = [osp.abspath(entry) for entry in found
             if isinstance(entry, str) and not _is_url(entry)]
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
        if not _is_video(entry):
            yield Picture(name, entry)
            continue
        video, frames = mmcv.VideoReader(entry), 0
        for frame in video if video.opened else ():
            yield Picture(f'{name}#{frames:06d}', frame, video=name,
                          fps=video.fps)
            frames += 1
        if not frames:
            skipped.append((name, 'OpenCV cannot read this video'))
        elif frames < video.frame_cnt:
            notes.append((name, f'the video ends after {frames} of '
                          f'{video.frame_cnt} frames'))


def count_pictures(found: Sequence) -> int:
    """How many :func:`load_inputs` yields at most, frames included."""
    return sum(
        max(1, mmcv.VideoReader(entry).frame_cnt) if _is_video(entry) else 1
        for entry in found)


def as_loaded(image: np.ndarray) -> dict:
    """What a loading transform would leave of a picture, BGR, (H, W, 3)."""
    shape = image.shape[:2]
    return dict(img=image, img_shape=shape, ori_shape=shape, height=shape[0],
                width=shape[1], img_id=0, img_path=None)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """A picture for the eye: RGB, (H, W, 3), uint8, of BGR or of any number
    of channels, of any type."""
    image = np.atleast_3d(image)
    if image.shape[2] < 3:
        image = image[..., :1].repeat(3, axis=2)
    image = image[..., 2::-1]
    if image.dtype == np.uint8 or not image.size:
        return image
    top = 255 if 1 < image.max() <= 255 else max(image.max(), 1e-12)
    return np.clip(255. * image / top, 0, 255).astype(np.uint8)


def _is_url(entry) -> bool:
    return isinstance(entry, str) and entry.startswith(('http://', 'https://'))


def _is_video(entry) -> bool:
    return (isinstance(entry, str) and not _is_url(entry)
            and Path(entry).suffix.lower() in VIDEOS)
