# Copyright (c) mmfishnet authors. All rights reserved.
"""What a user can put right is said in a message, without a traceback."""
from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

PAUSE = 5  # seconds


class RunStopped(Exception):
    """A run that ends before its time, by no fault of the program.

    Args:
        message (str): Why, and what to do.
        status (int): Exit status of the process. Defaults to 1.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def short_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn the errors that a user can put right into a message and an exit.

    Most errors are those of all processes of a job. The first of a host says
    it at once, and its launcher then ends the others; whoever is still there
    after five seconds has an error of its own, and says it. After Ctrl-C the
    status is 130, as of what ends by that signal.

    Args:
        *kinds (type[Exception]): Those errors, besides :class:`RunStopped`.
            Defaults to OSError, ModuleNotFoundError (of a package that a
            config builds on) and ValueError.

    Raises:
        SystemExit: In their place.
    """
    caught = kinds or (OSError, ModuleNotFoundError, ValueError)
    try:
        yield
    except (*caught, RunStopped) as error:
        words = str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            words = f'{error.filename}: {error.strerror}.'
        if not _is_first():
            time.sleep(PAUSE)
        print(f'error: {words}', file=sys.stderr, flush=True)
        raise SystemExit(getattr(error, 'status', 1)) from None
    except KeyboardInterrupt as stop:
        if _is_first():
            print(f'error: interrupted by Ctrl-C{stop}.', file=sys.stderr,
                  flush=True)
        raise SystemExit(128 + signal.SIGINT) from None


@contextmanager
def one_speaks() -> Iterator[None]:
    """Let one of the processes of a host write to stderr."""
    if _is_first():
        yield
        return
    with open(os.devnull, 'w') as nowhere, redirect_stderr(nowhere):
        yield


def _is_first() -> bool:
    """Whether this is the first process of this host, or alone."""
    return not any(
        int(os.environ.get(variable) or 0) for variable in (
            'LOCAL_RANK', 'SLURM_LOCALID', 'OMPI_COMM_WORLD_LOCAL_RANK'))
