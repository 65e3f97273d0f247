# Copyright (c) mmfishnet authors. All rights reserved.
"""The published weights, and how to get them."""
from __future__ import annotations

import hashlib
import os
import os.path as osp
import zipfile
from dataclasses import dataclass
from http.client import HTTPException
from tempfile import TemporaryDirectory
from urllib.parse import urlparse

import torch
from filelock import FileLock

from ..words import near
from .read import CheckpointError, read_checkpoint

SCHEME = 'mmfishnet://'
# Weights that come with the package; tools/analysis_tools/photographs.py and
# tools/publish.py make them again.
SHIPPED = dict(small=osp.join(osp.dirname(osp.dirname(__file__)),
                              'weights', 'small_eurosat.safetensors'))
_DROPBOX = 'https://www.dropbox.com/s'
_BAIDU = 'https://pan.baidu.com/s'


class DownloadError(OSError):
    """A file could not be fetched; the message says why."""


@dataclass(frozen=True)
class Source:
    """Published weights.

    Attributes:
        url (str): Where the file is.
        accuracy (str): What its publisher says of it (ImageNet, one crop).
        sha1 (str, optional): Checksum of the file, unpacked, where one is
            published.
        page (str, optional): Where else a browser gets it.
    """

    url: str
    accuracy: str
    sha1: str | None = None
    page: str | None = None


# As given on the authors' page and in pytorchcv's table of models. The first
# of each network is the default.
SOURCES = dict(
    fishnet99=dict(
        authors=Source(
            f'{_DROPBOX}/hvojbdsad5ue7yb/fishnet99_ckpt.tar?dl=1',
            'top-1 77.41 %',
            page=f'{_BAIDU}/11U3sRod1VfbDBRbmXph6KA')),
    fishnet150=dict(
        pytorchcv=Source(
            'https://github.com/osmr/imgclsmob/releases/download/v0.0.502/'
            'fishnet150-0475-93e26daa.pth.zip',
            'top-1 80.74 %',
            sha1='93e26daaf570bc92b58f7421ab28c22ca405ad93'),
        authors=Source(
            f'{_DROPBOX}/hjadcef18ln3o2v/fishnet150_ckpt.tar?dl=1',
            'top-1 78.14 %',
            page=f'{_BAIDU}/1uOEFsBHIdqpDLrbfCZJGUg'),
        authors_cosine=Source(
            f'{_DROPBOX}/ajy9p6f97y45f1r/fishnet150_ckpt_welltrained.tar?dl=1',
            'top-1 79.35 %, 200 cosine epochs and label smoothing',
            page=f'{_BAIDU}/1pt31cp-xGcsRJKZAPcp4yQ')),
    fishnet201=dict(
        authors_cosine=Source(
            f'{_DROPBOX}/kvz2dmxe3fzn10m/fishnet201_ckpt_welltrain.tar?dl=1',
            'top-1 79.71 %, 200 cosine epochs and label smoothing')))


def find_published(address: str, fetch: bool = True) -> str | None:
    """Find the file that ``mmfishnet://NAME`` stands for.

    ``checkpoints/NAME_in1k.pth`` in the current folder goes first, then what
    torch.hub's cache has; what is nowhere is fetched into that.

    Args:
        address (str): ``mmfishnet://fishnet99``, ``fishnet150`` or
            ``fishnet201``, for another than the default source with its name
            behind: ``mmfishnet://fishnet150/authors``. ``mmfishnet://small``
            is the small FishNet of ``configs/small``, pretrained on EuroSAT,
            which comes with the package.
        fetch (bool): Whether to fetch what is not there. Defaults to True.

    Returns:
        str | None: Path of the file; None if it is not there and ``fetch`` is
        False.

    Raises:
        CheckpointError: If nothing of that name was published.
        DownloadError: If it could not be fetched; says where to put it.
    """
    name = address.removeprefix(SCHEME)
    if name in SHIPPED:
        return SHIPPED[name]
    name, _, source = name.partition('/')
    own = osp.join('checkpoints', f'{name}_in1k.pth')
    if not source and osp.isfile(own):
        return own
    known = [SCHEME + name for name in (*SHIPPED, *SOURCES)] + [
        f'{SCHEME}{name}/{key}' for name in SOURCES for key in SOURCES[name]]
    if address not in known:
        raise CheckpointError(
            f'{address} was not published{near(address, known)}. There are '
            f'{", ".join(known)}.')
    facts = SOURCES[name][source or next(iter(SOURCES[name]))]
    path = cache_path(facts.url)
    if not fetch and not osp.exists(path):
        return None
    try:
        return fetch_file(facts.url, facts.sha1)
    except DownloadError as error:
        pages = ' or '.join(page for page in (facts.url, facts.page) if page)
        raise DownloadError(
            f'{address}: {error} Where there is no network, put the file '
            f'there by hand: a browser gets it from {pages}, and it belongs '
            f'to {path}, as it is. Any file of this network, of the '
            f"authors, pytorchcv's or converted, may be {osp.abspath(own)} "
            'instead.') from error


def cache_path(url: str, folder: str | None = None) -> str:
    """Where the file of a URL is kept, by default with torch.hub's."""
    folder = folder or osp.join(torch.hub.get_dir(), 'checkpoints')
    return osp.join(folder, osp.basename(urlparse(url).path) or 'download')


def fetch_file(url: str,
               sha1: str | None = None,
               folder: str | None = None,
               progress: bool = True) -> str:
    """Get the file of a URL, once for all processes of this host.

    Args:
        url (str): URL of a checkpoint, or of a ZIP archive of one.
        sha1 (str, optional): Checksum of the checkpoint, or its first digits.
        folder (str, optional): Where it is kept; by default torch.hub's.
        progress (bool): Whether to show a progress bar. Defaults to True.

    Returns:
        str: Path of the file, which appears when it is whole and verified.

    Raises:
        DownloadError: If it cannot be had, is no checkpoint or has another
            checksum.
    """
    path = cache_path(url, folder)
    if osp.exists(path):
        return path
    try:
        os.makedirs(osp.dirname(path), exist_ok=True)
        with FileLock(f'{path}.lock'):
            if not osp.exists(path):
                with TemporaryDirectory(dir=osp.dirname(path)) as part:
                    part = osp.join(part, osp.basename(path))
                    torch.hub.download_url_to_file(
                        url, part, progress=progress)
                    read_checkpoint(part)
                    check_sha1(part, sha1)
                    os.replace(part, path)
    except CheckpointError as error:
        raise DownloadError(
            f'{url}: what came was removed: {error}') from error
    # The last two are urllib's, ValueError for what is no URL.
    except (OSError, HTTPException, ValueError) as error:
        raise DownloadError(f'{url}: {error}.') from error
    return path


def check_sha1(path: str, sha1: str | None) -> None:
    """Check a checkpoint, or the one in a ZIP archive, as pytorchcv publishes
    them, against the beginning of its SHA-1 checksum, if one is known."""
    with open(path, 'rb') as file:
        content = file.read()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if len(archive.namelist()) == 1:
                content = archive.read(archive.namelist()[0])
    found = hashlib.sha1(content).hexdigest()
    if not found.startswith((sha1 or '').lower()):
        raise CheckpointError(
            f'its SHA-1 checksum is {found}, but {sha1} is published.')
