# Copyright (c) mmfishnet authors. All rights reserved.
"""What a user can put right is said in a message, without a traceback."""
from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from time import time


class RunStopped(Exception):
    """A run that ends before its time, by no fault of the program.

    Args:
        message (str): Why, and what to do.
        status (int): Exit status of the process. Defaults to 1.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class OwnError(ValueError):
    """What one process has to say, and the first of its host has not."""


@contextmanager
def short_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn the errors that a user can put right into a message and an exit.

    Of several processes that have the same to say, one says it.

    Args:
        *kinds (type[Exception]): Those errors, besides :class:`RunStopped`.
            Defaults to OSError, ModuleNotFoundError (of a package that a
            config builds on) and ValueError.

    Raises:
        SystemExit: In their place.
    """
    caught = kinds or (OSError, ModuleNotFoundError, ValueError)
    caught += (RunStopped, )
    try:
        yield
    except caught as error:
        status = getattr(error, 'status', 1)
        _say(f'error: {error}', status, isinstance(error, OwnError))
        raise SystemExit(status) from None


@contextmanager
def one_speaks() -> Iterator[None]:
    """Let one of the processes of a host write to stderr."""
    if _is_first():
        yield
        return
    with open(os.devnull, 'w') as nowhere, redirect_stderr(nowhere):
        yield


def _say(message: str, status: int, own: bool) -> None:
    # dist_run.py has the last word, and takes it from this file.
    file = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if file and 'MMFISHNET_SPEAKER' in os.environ:
        with open(file, 'w') as record:
            json.dump(dict(message=message, timestamp=int(time())), record)
        if status != 128 + signal.SIGTERM:  # which ends that one, too
            return
    if own or _is_first():
        print(message, file=sys.stderr, flush=True)


def _is_first() -> bool:
    """Whether this is the first process of this host, or alone."""
    return not any(
        int(os.environ.get(variable) or 0) for variable in (
            'LOCAL_RANK', 'SLURM_LOCALID', 'OMPI_COMM_WORLD_LOCAL_RANK'))
