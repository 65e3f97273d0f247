# Copyright (c) mmfishnet authors. All rights reserved.
"""From a config to a runner."""
from __future__ import annotations

from collections.abc import Sequence

from mmengine.config import Config
from mmengine.dist import all_gather_object
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..kinds import scope_of
from .errors import short_errors
from .hooks import EmptyResultsHook, FitCheckHook
from .launch import explain_lost_peers, init_launcher
from .noise import is_news
from .runner import ToolRunner


def build_runner(cfg: Config,
                 notes: Sequence[str] = (),
                 checkpoint: str | None = None,
                 whole: bool = False) -> Runner:
    """Build the runner of a config, in one process or one of several.

    Args:
        cfg (Config): Config.
        notes (Sequence[str]): Lines for the log.
        checkpoint (str, optional): What this process goes on from; all have
            to agree. Defaults to None.
        whole (bool): Whether the weights that are loaded have to fit all of
            the model, heads too. Defaults to False: that is so where a run
            goes on from a checkpoint.

    Returns:
        Runner: A :class:`ToolRunner`, or the one that ``runner_type`` of the
        config names.

    Raises:
        RuntimeError: If the processes of a job found different checkpoints.
        ValueError: If the launcher and the environment do not fit.
    """
    with short_errors():
        dist_cfg = cfg.get('env_cfg', {}).get('dist_cfg', {})
        init_launcher(cfg.launcher, dist_cfg.get('timeout'))
    with explain_lost_peers():
        if scope_of(cfg) == 'mmdet':
            from mmdet.utils import setup_cache_size_limit_of_dynamo
            setup_cache_size_limit_of_dynamo()
        if 'runner_type' in cfg:
            runner = RUNNERS.build(cfg)
            notes = [*notes, f'{type(runner).__name__} runs as it is: a run '
                     'that is killed does not go on exactly']
        else:
            runner = ToolRunner.from_cfg(cfg)
        runner.logger.addFilter(is_news)
        runner.register_hook(
            FitCheckHook(heads=whole or checkpoint is not None))
        runner.register_hook(EmptyResultsHook())
        for note in notes:
            runner.logger.info(note)
        found = all_gather_object(checkpoint)
    if len(set(found)) > 1:
        raise RuntimeError(
            'the processes of this job would go on from different '
            'checkpoints: ' + ', '.join(
                f'rank {rank} from {path}' for rank, path in enumerate(found))
            + '. The work directory should be one that all hosts share.')
    return runner
