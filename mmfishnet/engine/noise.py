# Copyright (c) mmfishnet authors. All rights reserved.
"""What upstream says at every start, and nobody can do anything about.

For the processes of our tools alone: they call :func:`leave_out_noise`, an
import of mmfishnet does not. Nothing else is left out.
"""
from __future__ import annotations

import logging
import re
import sys
import warnings
from typing import TextIO

WARNINGS = (
    # An optional evaluator of MMDetection's, said when all are imported
    'faster_coco_eval is not installed',
    # What MMEngine sets for its processes, as it should
    'Setting (OMP|MKL)_NUM_THREADS environment variable for each process',
    # An argument of MMEngine's wrapper to torch's
    '`broadcast_buffers` is deprecated',
    # MMSegmentation's hook, which a run without pictures has as well
    'The draw is False, it means that the hook for visualization',
    # torchvision's NMS and torch's own export
    '`create_unbacked_symint` is deprecated',
    r'`isinstance\(treespec, LeafSpec\)` is deprecated',
    # Gradients of 1x1 convolutions, whose layout has two names
    'Grad strides do not match bucket view strides',
)
LOGGED = (
    # MMEngine's own checkpoint hook uses both.
    '"FileClient" will be deprecated in future',
    '"HardDiskBackend" is the alias of "LocalBackend"',
)
# OneDL's own data sets need a package that is not public; pycocotools says
# four lines of each annotation file that it reads.
PRINTED = re.compile(
    r'Could not import OneDL.*|loading annotations into memory\.\.\.|'
    r'Done \(t=[\d.]+s\)|creating index\.\.\.|index created!')


class NewsOnly:
    """A stream without the lines that are no news.

    Args:
        stream (TextIO): Where the others go.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.skipped = stream, False

    def write(self, text: str) -> int:
        """Write, as :func:`print` does: a line, then its end."""
        end_of_skipped = self.skipped and text == '\n'
        self.skipped = PRINTED.fullmatch(text) is not None
        if self.skipped or end_of_skipped:
            return len(text)
        return self.stream.write(text)

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


def leave_out_noise() -> None:
    """Keep known noise off this process's screen and logs."""
    for message in WARNINGS:
        warnings.filterwarnings('ignore', message)
    if not isinstance(sys.stdout, NewsOnly):
        sys.stdout = NewsOnly(sys.stdout)


def is_news(record: logging.LogRecord) -> bool:
    """A filter for a runner's logger: ``runner.logger.addFilter(is_news)``."""
    return not record.getMessage().startswith(LOGGED)
