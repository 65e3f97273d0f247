# Copyright (c) mmfishnet authors. All rights reserved.
"""The runner of the tools."""
from __future__ import annotations

import logging

from mmengine.logging import MMLogger
from mmengine.registry import LOG_PROCESSORS
from mmengine.runner import LogProcessor

from ..kinds import find_class
from .exact import ExactRunner
from .log import BriefFormatter, TrainLogProcessor


class ToolRunner(ExactRunner):
    """The runner of the tools: an exact one whose screen shows what happens.

    The config, the environment and the list of hooks are in the log file, and
    the screen says so. Iterations are described by
    :class:`TrainLogProcessor`, unless the config names another processor.

    Args:
        *args: As of :class:`mmengine.runner.Runner`.
        **kwargs: As of :class:`mmengine.runner.Runner`.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for handler in self.logger.handlers:
            if isinstance(handler.formatter, BriefFormatter):
                handler.setFormatter(handler.formatter.whole)

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Build the logger; what is long goes to its file alone."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            # A FileHandler is a StreamHandler too.
            if not isinstance(handler, logging.FileHandler):
                handler.setFormatter(
                    BriefFormatter(handler.formatter, logger.log_file))
        return logger

    def build_log_processor(self, log_processor) -> LogProcessor:
        """Build ours in the place of MMEngine's default."""
        if isinstance(log_processor, dict):
            kind = log_processor.get('type', LogProcessor)
            if find_class(LOG_PROCESSORS, kind) is LogProcessor:
                log_processor = dict(log_processor, type=TrainLogProcessor)
        return super().build_log_processor(log_processor)
