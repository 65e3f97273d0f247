# Copyright (c) mmfishnet authors. All rights reserved.
"""The published weights, and how to get them."""
from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import os.path as osp
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TransferSpeedColumn,
)

from .read import CheckpointError

_CHUNK = 1 << 20
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
            'top-5 error 4.75 %',
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


def fetch_weights(name: str, url: str, sha1: str | None, target: str,
                  convert_file: Callable[[str, str], str]) -> None:
    """Download, verify and convert weights.

    What has come of a broken transfer stays beside the target, for the next
    attempt; otherwise nothing but the target is left, and it appears only
    when everything is in order.

    Args:
        name (str): 'fishnet99', 'fishnet150' or 'fishnet201'.
        url (str): URL of a checkpoint, or of a ZIP archive of one.
        sha1 (str, optional): Checksum of the checkpoint, or its first digits;
            None if there is none.
        target (str): File to write, with a whole classifier.
        convert_file (Callable[[str, str], str]): Converts the first file to
            the second and tells what it holds, such as 'FishNet-150'; see
            :func:`mmfishnet.models.released.convert_file`.

    Raises:
        CheckpointError: If the file is not a complete checkpoint of that
            network.
        DownloadError: If it could not be fetched, or has another checksum.
    """
    archive = osp.join(
        osp.dirname(target), osp.basename(urlparse(url).path) or 'download')
    partial = f'{target}.converting'
    download(url, archive)
    try:
        if sha1:
            check_sha1(archive, sha1)
        found = convert_file(archive, partial)
        if found.replace('-', '').lower() != name:
            raise CheckpointError(f'{url} holds {found}, not {name}.')
        os.replace(partial, target)
    finally:
        for path in (archive, partial):
            if osp.exists(path):
                os.remove(path)


def download(url: str,
             path: str,
             retries: int = 3,
             timeout: float = 30,
             progress: bool = True) -> None:
    """Download a file; go on where an earlier attempt was cut off.

    What has come so far is in ``path + '.part'``; ``path`` appears only when
    the file is complete.

    Args:
        url (str): URL of the file.
        path (str): Where to put it.
        retries (int): How often to go on when the transfer breaks. Defaults
            to 3.
        timeout (float): Seconds without an answer that count as broken.
            Defaults to 30.
        progress (bool): Whether to show a progress bar. Defaults to True.

    Raises:
        DownloadError: If the link is dead, leads to a web page instead of a
            file, or breaks too often.
    """
    part = f'{path}.part'
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    for attempt in range(retries + 1):
        try:
            _fetch(url, part, timeout, progress)
            os.replace(part, path)
            return
        except _Broken as error:
            if attempt == retries:
                raise DownloadError(
                    f'{url}: {error}, {retries + 1} times. What has come so '
                    f'far is in {part}; run again to go on from there.'
                ) from error
            time.sleep(min(2**attempt, 10) / 2)


class _Broken(Exception):
    """A transfer that is worth going on with."""


def _fetch(url: str, part: str, timeout: float, progress: bool) -> None:
    start = osp.getsize(part) if osp.exists(part) else 0
    headers = {'User-Agent': 'mmfishnet'}
    if start:
        headers['Range'] = f'bytes={start}-'
    try:
        response = urlopen(Request(url, headers=headers), timeout=timeout)
    except HTTPError as error:
        if error.code == 416:  # nothing after what is there
            if error.headers.get('Content-Range') == f'bytes */{start}':
                return
            os.remove(part)
            raise _Broken('what had come is not a part of the file') from error
        if error.code >= 500:
            raise _Broken(f'HTTP {error.code} {error.reason}') from error
        raise DownloadError(
            f'{url}: HTTP {error.code} {error.reason}') from error
    except (URLError, OSError, ValueError,
            http.client.HTTPException) as error:
        raise DownloadError(
            f'{url}: {getattr(error, "reason", error)}') from error

    with response:
        if response.headers.get_content_type() == 'text/html':
            raise DownloadError(f'{url}: the server sent a web page instead '
                                'of the file')
        length = response.headers.get('Content-Length')
        span = response.headers.get('Content-Range', '')
        if response.status != 206:
            start = 0  # the whole file
        elif not span.startswith(f'bytes {start}-'):
            os.remove(part)
            raise _Broken(f'asked for bytes {start}-, got {span!r}')
        total = start + int(length) if length else None
        size = _write(response, part, start, total, progress)
    if total is not None and size < total:
        raise _Broken(f'the transfer broke after {size} of {total} bytes')


def _write(response, part: str, start: int, total: int | None,
           progress: bool) -> int:
    """Append to the part file what comes, and tell its size."""
    columns = (TextColumn('{task.description}'), BarColumn(), DownloadColumn(),
               TransferSpeedColumn())
    name = osp.basename(part)[:-len('.part')]
    with open(part, 'r+b' if start else 'wb') as file, Progress(
            *columns, disable=not progress) as bar:
        file.seek(start)
        task = bar.add_task(name, total=total, completed=start)
        try:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                bar.advance(task, len(chunk))
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(f'the transfer broke after {file.tell()} bytes '
                          f'({error})') from error
        return file.tell()


def check_sha1(path: str, sha1: str) -> None:
    """Check a file against the beginning of its SHA-1 checksum.

    Args:
        path (str): A checkpoint, or a ZIP archive of one, as pytorchcv
            publishes them: it is the checkpoint's checksum.
        sha1 (str): The checksum, or as many of its first digits as are known.

    Raises:
        DownloadError: If it is another, or the archive is damaged.
    """
    digest = hashlib.sha1()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, 'rb'))
        try:
            if zipfile.is_zipfile(path):
                archive = stack.enter_context(zipfile.ZipFile(path))
                if len(archive.namelist()) == 1:
                    file = stack.enter_context(
                        archive.open(archive.namelist()[0]))
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DownloadError(f'the archive that came is damaged ({error}).'
                                ' It was removed.') from error
    if not digest.hexdigest().startswith(sha1.lower()):
        raise DownloadError(
            f'the file that came has the SHA-1 checksum {digest.hexdigest()}, '
            f'but {sha1} is published. It was removed.')
