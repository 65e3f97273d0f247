# Copyright (c) mmfishnet authors. All rights reserved.
"""Read checkpoint files without running any code that they may hold."""
from __future__ import annotations

import argparse
import datetime
import io
import os.path as osp
import pathlib
import pickle
import re
import zipfile
import zlib
from types import SimpleNamespace

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import _ParamScheduler
from mmengine.utils import digit_version

# Since then torch's own unpickler reads what others declare to be safe, also
# under another name.
_TORCH_IS_SAFE = digit_version(torch.__version__) >= digit_version('2.6.0')


class CheckpointError(ValueError):
    """A checkpoint is not what it should be; the message says how."""


def read_checkpoint(path: str, map_location='cpu'):
    """Read a checkpoint file; never runs code from it.

    Args:
        path (str): A file that ``torch.save`` wrote, in its present or its
            older format, a ZIP archive of one such file, or a file of
            safetensors. ``~`` is the home folder.
        map_location (str | torch.device | Callable): Where the tensors go, as
            in :func:`torch.load`. Defaults to 'cpu'. Those of safetensors
            stay on the CPU.

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
        raise FileNotFoundError(f'the checkpoint {path} does not exist.')
    if str(path).endswith('.safetensors'):
        return _read_safetensors(path)
    file = _open(path)
    try:
        return _unpickle(file, map_location)
    except (MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # any, since it may be damaged in any way
        message = str(error)
        if 'map_location' in message and not isinstance(
                error, pickle.UnpicklingError):
            raise  # a GPU's tensors where there is none
        if refused := _REFUSED.search(message):
            allow = (
                'allow that by torch.serialization.add_safe_globals, or '
                if _TORCH_IS_SAFE else '')
            raise CheckpointError(
                f'{path} holds more than weights: reading it would look up '
                f'{refused[1]}, which could run code. It was not read. If you '
                f"trust it, {allow}save its ['state_dict'] alone with torch."
            ) from error
        lines = re.sub(
            '.*WeightsUnpickler error: ', '', message,
            flags=re.DOTALL).strip().splitlines()
        raise CheckpointError(
            f'{path} ({osp.getsize(path)} bytes) is damaged or cut '
            f'short; torch says: {type(error).__name__}: '
            f'{lines[0] if lines else ""}') from error


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
    try:
        # Here, because the package is optional.
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{path} can only be read with the package safetensors: '
            '`pip install safetensors`.') from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f'{path} ({osp.getsize(path)} bytes) is damaged or cut short; '
            f'safetensors says: {error}') from error


def _open(path: str) -> str | io.BytesIO:
    """Open the file that ``torch.save`` wrote, alone in an archive or not."""
    size = osp.getsize(path)
    with open(path, 'rb') as file:
        head = file.read(64)
    if head[:1] == b'\x80':
        return path
    if head[:2] != b'PK':
        what = f'its first bytes are {head[:16]!r}' if head else 'it is empty'
        raise CheckpointError(f'{path} is not a checkpoint of torch: {what}.')
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if not n.endswith('/')]
            if any(osp.basename(name) == 'data.pkl' for name in names):
                return path
            if len(names) == 1:
                return io.BytesIO(archive.read(names[0]))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise CheckpointError(
            f'{path} ({size} bytes) is damaged or cut short, as a broken '
            'transfer leaves it. Get it again.') from error
    raise CheckpointError(
        f'{path} is a ZIP archive, but not a checkpoint of torch: it holds '
        f'{len(names)} files, {", ".join(names[:4])}.')


# What a file may name -------------------------------------------------------

# In torch's words and in those of _Unpickler and _method.
_REFUSED = re.compile(r'GLOBAL (getattr\(.*?\)|[\w.<>]+)')


def _method(owner, name: str):
    """``getattr`` for the methods that logs and schedulers refer to."""
    cls = owner if isinstance(owner, type) else type(owner)
    if (issubclass(cls, (HistoryBuffer, _ParamScheduler))
            and not name.startswith('__')
            and callable(getattr(cls, name, None))):
        return getattr(owner, name)
    raise pickle.UnpicklingError(
        f'GLOBAL getattr({cls.__name__}.{name}) was refused')


def _schedulers(cls: type = _ParamScheduler) -> list[type]:
    """MMEngine's schedulers, and those that projects made of them."""
    return [
        cls, *(c for sub in cls.__subclasses__() for c in _schedulers(sub))
    ]


def _allowed() -> dict[str, object]:
    """What files may name besides what torch allows, under which names.

    Data that stand beside weights: MMEngine's logs and schedulers, scalars
    and arrays of numpy (with the name that it has had since 2.0 and before),
    the arguments of a script, paths and dates.
    """
    allowed = {
        f'{thing.__module__}.{thing.__qualname__}': thing
        for thing in (HistoryBuffer, *_schedulers(), slice, range, frozenset,
                      argparse.Namespace, datetime.date, datetime.datetime,
                      datetime.timedelta, np.ndarray, np.dtype)
    }
    allowed['builtins.getattr'] = _method
    # In Python 3.13 alone the module is another.
    for module in 'pathlib', 'pathlib._local':
        for system in 'Posix', 'Windows':
            allowed[f'{module}.{system}Path'] = pathlib.Path
            allowed[f'{module}.Pure{system}Path'] = pathlib.PurePath
    reconstruct = np.empty(0).__reduce__()[0]
    scalar = np.float64().__reduce__()[0]
    for module in 'numpy.core.multiarray', 'numpy._core.multiarray':
        allowed[f'{module}._reconstruct'] = reconstruct
        allowed[f'{module}.scalar'] = scalar
    return allowed


def _unpickle(file, map_location):
    if _TORCH_IS_SAFE:
        entries = [(thing, name) for name, thing in _allowed().items()]
        # The types of dtypes, which no file names, but torch compares.
        entries += [type(np.dtype(code)) for code in np.typecodes['All']]
        try:
            with torch.serialization.safe_globals(entries):
                return torch.load(
                    file, map_location=map_location, weights_only=True)
        except pickle.UnpicklingError as error:
            if 'Unsupported operand' not in str(error):
                raise  # else of a protocol that torch does not write itself
        if isinstance(file, io.BytesIO):
            file.seek(0)
    return torch.load(
        file,
        map_location=map_location,
        pickle_module=_SAFE_PICKLE,
        weights_only=False)


class _Unpickler(pickle.Unpickler):
    """The same for older torch, whose own cannot be told what is safe, and for
    protocols of pickle that torch's own does not know."""

    TORCH = {
        f'{thing.__module__}.{thing.__qualname__}': thing
        for thing in (torch.Size, torch.device,
                      torch._utils._rebuild_tensor_v2,
                      torch._utils._rebuild_parameter)
    }
    PYTHON = ('_codecs.encode', 'builtins.bytearray', 'builtins.complex',
              'builtins.set', 'collections.Counter', 'collections.OrderedDict')

    def find_class(self, module, name):
        # As pickles name it since Python 2.
        module = 'builtins' if module == '__builtin__' else module
        full = f'{module}.{name}'
        known = {**self.TORCH, **_allowed()}
        if full in known:
            return known[full]
        dtype = module == 'torch' and isinstance(
            getattr(torch, name, None), torch.dtype)
        if full in self.PYTHON or dtype:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f'GLOBAL {full} was refused')


# In the form that torch.load takes.
_SAFE_PICKLE = SimpleNamespace(
    __name__=__name__,
    Unpickler=_Unpickler,
    load=lambda file, **kwargs: _Unpickler(file, **kwargs).load())
