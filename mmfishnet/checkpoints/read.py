# Copyright (c) mmfishnet authors. All rights reserved.
"""Read checkpoint files without running any code that they may hold."""
from __future__ import annotations

import io
import os.path as osp
import pickle
import zipfile
from types import SimpleNamespace

import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import _ParamScheduler

from .convert import CheckpointError

# What training logs and numpy scalars in a checkpoint are made of. Besides
# this, nothing that a file names is looked up.
_SAFE = {
    *(('collections', name)
      for name in ('Counter', 'OrderedDict', 'defaultdict', 'deque')),
    *(('builtins', name)
      for name in ('bool', 'bytearray', 'complex', 'dict', 'float',
                   'frozenset', 'int', 'list', 'range', 'set', 'slice', 'str',
                   'tuple')),
    *(('datetime', name) for name in ('date', 'datetime', 'timedelta')),
    *(('pathlib', name) for name in ('PosixPath', 'PurePosixPath')),
    ('_codecs', 'encode'),
    ('torch', 'Size'),
    ('torch', 'device'),
    ('torch._utils', '_rebuild_parameter'),
    ('torch._utils', '_rebuild_tensor_v2'),
    ('numpy', 'dtype'),
    ('numpy', 'ndarray'),
    ('numpy.core.multiarray', '_reconstruct'),
    ('numpy.core.multiarray', 'scalar'),
    ('numpy._core.multiarray', '_reconstruct'),
    ('numpy._core.multiarray', 'scalar'),
}


class _Refused(pickle.UnpicklingError):
    """A file names something that could run code."""


def _is_training_state(cls) -> bool:
    """Whether this is a class of MMEngine's logs or schedulers."""
    return isinstance(cls, type) and issubclass(
        cls, (HistoryBuffer, _ParamScheduler))


def _method(owner, name: str):
    """``getattr`` for the methods that those refer to."""
    cls = owner if isinstance(owner, type) else type(owner)
    if _is_training_state(cls) and name.isidentifier(
    ) and not name.startswith('__') and callable(getattr(cls, name, None)):
        return getattr(owner, name)
    raise _Refused(f'getattr({owner!r}, {name!r})')


def _allowed_by_user() -> dict:
    """What was given to ``torch.serialization.add_safe_globals``."""
    allowed = {}
    for entry in getattr(torch.serialization, 'get_safe_globals', list)():
        if isinstance(entry, tuple):  # with the name that it has in files
            allowed[entry[1]] = entry[0]
        else:
            allowed[f'{entry.__module__}.{entry.__qualname__}'] = entry
    return allowed


class _Unpickler(pickle.Unpickler):

    def find_class(self, module, name):
        if module == '__builtin__':  # as pickles name it since Python 2
            module = 'builtins'
        if (module, name) == ('builtins', 'getattr'):
            return _method
        if module.startswith('mmengine.'):
            found = super().find_class(module, name)
            if _is_training_state(found):
                return found
        if (module, name) in _SAFE or (
                module == 'torch'
                and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        allowed = _allowed_by_user()
        if f'{module}.{name}' in allowed:
            return allowed[f'{module}.{name}']
        raise _Refused(f'{module}.{name}')


# In the form that torch.load takes.
_SAFE_PICKLE = SimpleNamespace(
    __name__='mmfishnet.checkpoints.read',
    Unpickler=_Unpickler,
    load=lambda file, **kwargs: _Unpickler(file, **kwargs).load())


def read_checkpoint(path: str, map_location='cpu'):
    """Read a checkpoint file; never runs code from it.

    Args:
        path (str): A file that ``torch.save`` wrote, in its present or its
            older format, or a ZIP archive of one such file.
        map_location (str | torch.device | Callable): Where the tensors go, as
            in :func:`torch.load`. Defaults to 'cpu'.

    Returns:
        object: What the file holds: tensors, numbers, strings, numpy arrays,
        MMEngine's logs, and lists and dicts of them.

    Raises:
        CheckpointError: If the file is not a checkpoint, is damaged or cut
            short, or could not be read without running code from it.
        FileNotFoundError: If there is no such file.
    """
    path = osp.expanduser(path)
    if not osp.isfile(path):
        raise FileNotFoundError(f'{path} can not be found.')
    file = _open(path)
    try:
        return torch.load(file, map_location=map_location, weights_only=True)
    except Exception:  # any, since it may be damaged in any way
        pass
    if isinstance(file, io.BytesIO):
        file.seek(0)
    try:
        return torch.load(
            file,
            map_location=map_location,
            pickle_module=_SAFE_PICKLE,
            weights_only=False)
    except _Refused as error:
        raise CheckpointError(
            f'{path} holds more than weights: reading it would look up '
            f'{error}, which could run code. It was not read. If you trust '
            'it, allow that by torch.serialization.add_safe_globals, or save '
            "its ['state_dict'] alone with torch.") from error
    except (MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        if 'map_location' in str(error):
            raise  # a GPU's tensors where there is none
        raise CheckpointError(
            f'{path} ({osp.getsize(path)} bytes) is damaged or cut short; '
            f'torch says: {type(error).__name__}: '
            f'{str(error).splitlines()[0] if str(error) else ""}'
        ) from error


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
    except (zipfile.BadZipFile, EOFError) as error:
        raise CheckpointError(
            f'{path} ({size} bytes) is damaged or cut short, as a broken '
            'transfer leaves it. Get it again.') from error
    raise CheckpointError(
        f'{path} is a ZIP archive, but not a checkpoint of torch: it holds '
        f'{len(names)} files, {", ".join(names[:4])}.')
