# Copyright (c) mmfishnet authors. All rights reserved.
"""From a config to a runner."""
from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from mmengine.config import Config
from mmengine.dist import all_gather_object
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..checks import Problem
from .errors import short_errors
from .hooks import FitCheckHook, NormCheckHook
from .launch import explain_lost_peers, init_launcher
from .log import ReadableRunner


def build_runner(cfg: Config,
                 notes: Sequence[str] = (),
                 checkpoint: str | None = None,
                 check: Callable[[], Sequence[Problem]] = tuple) -> Runner:
    """Build the runner of a config, in one process or one of several.

    Args:
        cfg (Config): Config.
        notes (Sequence[str]): Lines for the log.
        checkpoint (str, optional): What this process goes on from; all have
            to agree. Defaults to None.
        check (Callable[[], Sequence[Problem]]): What is called as soon as the
            processes know each other; its warnings go to the log. Defaults to
            nothing.

    Returns:
        Runner: A :class:`ReadableRunner`, or the one that ``runner_type``
        of the config names.

    Raises:
        RuntimeError: If the processes of a job found different checkpoints.
        ValueError: If the launcher and the environment do not fit.
    """
    with short_errors():
        dist_cfg = cfg.get('env_cfg', {}).get('dist_cfg', {})
        init_launcher(cfg.launcher, dist_cfg.get('timeout'))
        problems = check()
    with explain_lost_peers():
        if cfg.get('default_scope') == 'mmdet':
            from mmdet.utils import setup_cache_size_limit_of_dynamo
            setup_cache_size_limit_of_dynamo()
        if 'runner_type' in cfg:
            runner = RUNNERS.build(cfg)
        else:
            runner = ReadableRunner.from_cfg(cfg)
        runner.register_hook(NormCheckHook())
        runner.register_hook(FitCheckHook())
        for note in notes:
            runner.logger.info(note)
        for problem in problems:
            runner.logger.log(
                logging.WARNING if problem.level == 'warning' else
                logging.INFO, str(problem))
        found = all_gather_object(checkpoint)
    if len(set(found)) > 1:
        raise RuntimeError(
            'the processes of this job would go on from different '
            'checkpoints: ' + ', '.join(
                f'rank {rank} from {path}' for rank, path in enumerate(found))
            + '. The work directory should be one that all hosts share.')
    return runner
