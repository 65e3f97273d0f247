# Copyright (c) mmfishnet authors. All rights reserved.
"""What a user can put right is said in a message, without a traceback."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def short_errors() -> Iterator[None]:
    """Turn the errors that a user can put right into a message and an exit.

    Raises:
        SystemExit: In place of FileNotFoundError, ModuleNotFoundError (of a
            package that a config builds on) and ValueError.
    """
    try:
        yield
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        raise SystemExit(f'error: {error}') from None
