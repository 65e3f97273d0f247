# Copyright (c) mmfishnet authors. All rights reserved.
"""Read checkpoint files without running any code that they may hold."""
from __future__ import annotations

import argparse
import datetime
import io
import os
import os.path as osp
import pathlib
import pickle
import zipfile
from types import SimpleNamespace

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import _ParamScheduler

from ..words import first_few


class CheckpointError(ValueError):
    """A checkpoint is not what it should be; the message says how."""


def no_checkpoint(path: str) -> str:
    """A sentence on a checkpoint that is not there, and those beside it."""
    folder = osp.dirname(path) or os.curdir
    names = os.listdir(folder) if osp.isdir(folder) else ()
    there = sorted(name for name in names if name.endswith('.pth'))
    return f'the checkpoint {path} does not exist' + (
        f'; in {folder} there are {first_few(there)}.' if there else
        f'; {folder} holds none.' if osp.isdir(folder) else
        f', nor does the folder {folder}.')


def read_checkpoint(path: str, map_location='cpu'):
    """Read a checkpoint file; never runs code from it.

    Args:
        path (str): A file that ``torch.save`` wrote, in its present or its
            older format, a ZIP archive of one such file, or a file of
            safetensors. ``~`` is the home folder.
        map_location (str | torch.device | Callable): Where the tensors go, as
            in :func:`torch.load`. Defaults to 'cpu'. Those of safetensors stay
            on the CPU.

    Returns:
        object: What the file holds: tensors, numbers, strings, paths, the
        arguments of a script, numpy arrays, MMEngine's logs and schedulers,
        and lists and dicts of them.

    Raises:
        CheckpointError: If the file is not a checkpoint, is damaged or cut
            short, or could not be read without running code from it.
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If it is of safetensors, and that package is not
            installed.
    """
    path = osp.expanduser(path)
    if not osp.isfile(path):
        raise FileNotFoundError(no_checkpoint(path))
    try:
        with open(path, 'rb') as file:
            head = file.read(64)
        if path.endswith('.safetensors') or head[8:9] == b'{':
            return _read_safetensors(path)
        return torch.load(_open(path, head), map_location=map_location,
                          pickle_module=_SAFE_PICKLE, weights_only=False)
    except (CheckpointError, ImportError, MemoryError,
            torch.cuda.OutOfMemoryError):
        raise
    except _Refused as error:
        allow = ('allow that by torch.serialization.add_safe_globals, or '
                 if hasattr(torch.serialization, 'add_safe_globals') else '')
        raise CheckpointError(
            f'{path} holds more than weights: reading it would look up '
            f'{error}, which could run code. It was not read. If you trust '
            f"it, {allow}save its ['state_dict'] alone with torch."
        ) from error
    except Exception as error:  # any, since it may be damaged in any way
        if 'map_location' in str(error):
            raise  # a GPU's tensors where there is none
        lines = [*str(error).strip().splitlines(), '']
        raise CheckpointError(
            f'{path} ({osp.getsize(path)} bytes) is damaged or cut short, as '
            'a broken transfer leaves it. Get it again. What was said: '
            f'{type(error).__name__}: {lines[0]}') from error


def is_damaged(path: str) -> bool:
    """Whether a file of ``torch.save`` was not written to its end, or changed.

    Args:
        path (str): The file. Of torch's format before 1.6, and of files that
            were written without checksums, it cannot be told in full.
    """
    with open(path, 'rb') as file:
        if file.read(2) not in (b'PK', b''):
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            # torch.serialization.set_crc32_options(False) leaves zeros.
            return (any(info.CRC for info in archive.infolist())
                    and archive.testzip() is not None)
    except zipfile.BadZipFile:
        return True


def _read_safetensors(path: str) -> dict[str, torch.Tensor]:
    try:  # the package is optional
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{path} can only be read with the package safetensors: '
            '`pip install safetensors`.') from error
    return load_file(path)


def _open(path: str, head: bytes) -> str | io.BytesIO:
    """Open the file that ``torch.save`` wrote, alone in an archive or not."""
    if head[:1] == b'\x80':
        return path
    if head[:2] != b'PK':
        what = f'its first bytes are {head[:16]!r}' if head else 'it is empty'
        raise CheckpointError(f'{path} is not a checkpoint of torch: {what}.')
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if not n.endswith('/')]
        if any(osp.basename(name) == 'data.pkl' for name in names):
            return path
        if len(names) == 1:
            return io.BytesIO(archive.read(names[0]))
    raise CheckpointError(
        f'{path} is a ZIP archive, but not a checkpoint of torch: it holds '
        f'{len(names)} files, {", ".join(names[:4])}.')


# What a file may name -------------------------------------------------------


class _Refused(pickle.UnpicklingError):
    """A file names what it may not; the message is that name."""


def _name(thing) -> str:
    return f'{thing.__module__}.{thing.__qualname__}'


def _method(owner, name: str):
    """``getattr`` for the methods that logs and schedulers refer to."""
    cls = owner if isinstance(owner, type) else type(owner)
    if (issubclass(cls, (HistoryBuffer, _ParamScheduler))
            and not name.startswith('__')
            and callable(getattr(cls, name, None))):
        return getattr(owner, name)
    raise _Refused(f'getattr({cls.__name__}.{name})')


def _schedulers(cls: type = _ParamScheduler) -> list[type]:
    """MMEngine's schedulers, and those that projects made of them."""
    return [cls, *(c for s in cls.__subclasses__() for c in _schedulers(s))]


def _allowed() -> dict[str, object]:
    """What files may name, by name.

    Tensors, and data that stand beside weights: MMEngine's logs and
    schedulers, scalars and arrays of numpy (with the name that it has had
    since 2.0 and before), the arguments of a script, paths and dates; and
    what ``torch.serialization.add_safe_globals`` allows.
    """
    rebuild = [getattr(torch._utils, f'_rebuild_{kind}') for kind in (
        'tensor', 'tensor_v2', 'parameter', 'sparse_tensor', 'qtensor')]
    allowed = {
        _name(thing): thing
        for thing in (*rebuild, torch.Size, torch.device, torch.nn.Parameter,
                      HistoryBuffer, *_schedulers(), argparse.Namespace,
                      datetime.date, datetime.datetime, datetime.timedelta,
                      np.ndarray, np.dtype, bytearray, complex, frozenset,
                      range, set, slice)
    }
    allowed['builtins.getattr'] = _method
    # In Python 3.13 alone the module is another.
    for module in 'pathlib', 'pathlib._local':
        for system in 'Posix', 'Windows':
            allowed[f'{module}.{system}Path'] = pathlib.Path
            allowed[f'{module}.Pure{system}Path'] = pathlib.PurePath
    for module in 'numpy.core.multiarray', 'numpy._core.multiarray':
        allowed[f'{module}._reconstruct'] = np.empty(0).__reduce__()[0]
        allowed[f'{module}.scalar'] = np.float64().__reduce__()[0]
    for thing in getattr(torch.serialization, 'get_safe_globals', list)():
        # With torch from 2.6 also (thing, the name that files have for it).
        thing, name = thing if isinstance(thing, tuple) else (thing, None)
        allowed[name or _name(thing)] = thing
    return allowed


class _Unpickler(pickle.Unpickler):
    """Looks up what is allowed and nothing else.

    torch's own for this (``weights_only=True``) does not know every protocol
    of pickle, and before torch 2.6 cannot be told what is safe.
    """

    PYTHON = ('_codecs.encode', 'collections.Counter',
              'collections.OrderedDict', 'collections.defaultdict')

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._known = _allowed()

    def find_class(self, module, name):
        # As pickles name it since Python 2.
        full = f'{module.replace("__builtin__", "builtins")}.{name}'
        if full in self._known:
            return self._known[full]
        dtype = module == 'torch' and isinstance(
            getattr(torch, name, None), torch.dtype)
        if full in self.PYTHON or dtype:
            return super().find_class(module, name)
        raise _Refused(full)


# In the form that torch.load takes.
_SAFE_PICKLE = SimpleNamespace(
    __name__=__name__, Unpickler=_Unpickler,
    load=lambda file, **kwargs: _Unpickler(file, **kwargs).load())
