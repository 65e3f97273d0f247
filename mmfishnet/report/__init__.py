# Copyright (c) mmfishnet authors. All rights reserved.
from .page import write_report
from .runs import Run, read_run

__all__ = ['Run', 'read_run', 'write_report']
