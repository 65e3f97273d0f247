# Copyright (c) mmfishnet authors. All rights reserved.
from .page import write_report

__all__ = ['write_report']
