# Copyright (c) mmfishnet authors. All rights reserved.
"""What upstream says at every start, and nobody can do anything about.

For the processes of our tools alone: they call :func:`leave_out_noise`, an
import of mmfishnet does not. Nothing else is left out.
"""
from __future__ import annotations

import importlib
import logging
import re
import warnings
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO

WARNINGS = (
    # An optional evaluator of MMDetection's, said when all are imported
    'faster_coco_eval is not installed',
    # What MMEngine sets for its processes, as it should
    'Setting (OMP|MKL)_NUM_THREADS environment variable for each process',
    # An argument of MMEngine's wrapper to torch's
    '`broadcast_buffers` is deprecated',
    # Gradients of 1x1 convolutions, whose layout has two names
    'Grad strides do not match bucket view strides',
)
LOGGED = (
    # MMEngine's own checkpoint hook uses both.
    '"FileClient" will be deprecated in future',
    '"HardDiskBackend" is the alias of "LocalBackend"',
)
# OneDL's own data sets need a package that is not public.
PRINTED = r'Could not import OneDL.*\n?'


def leave_out_noise(scope: str | None = None) -> None:
    """Keep known noise off this process's screen and logs.

    Args:
        scope (str, optional): The config's ``default_scope``, whose data sets
            are imported here, as they print. Defaults to None.
    """
    for message in WARNINGS:
        warnings.filterwarnings('ignore', message)
    if scope in ('mmdet', 'mmpretrain', 'mmseg') and find_spec(scope):
        said = StringIO()
        with redirect_stdout(said):
            importlib.import_module(f'{scope}.datasets')
        print(re.sub(PRINTED, '', said.getvalue()), end='')


def is_news(record: logging.LogRecord) -> bool:
    """A filter for a runner's logger: ``runner.logger.addFilter(is_news)``."""
    return not record.getMessage().startswith(LOGGED)
