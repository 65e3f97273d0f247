# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import TestLoop, ValLoop

_AP = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
_AR = ('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000')


class EmptyResultsHook(Hook):
    """Report 0 where nothing at all was detected.

    MMDetection's COCO metric reports nothing then, so that the log repeats
    the numbers of the epoch before, and the search for the best checkpoint
    breaks off. Metrics, evaluators and loops that are derived from these, and
    may report in another way, are left alone.
    """

    # Before MMEngine's hook notes the numbers.
    priority = 'HIGHEST'

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Complete what a validation reports."""
        if type(runner.val_loop) is ValLoop:
            _complete(runner, runner.val_evaluator, metrics)

    def after_test_epoch(self, runner, metrics=None) -> None:
        """Complete what a test reports."""
        if type(runner.test_loop) is TestLoop:
            _complete(runner, runner.test_evaluator, metrics)


def _complete(runner, evaluator, metrics: dict | None) -> None:
    if metrics is None or type(evaluator) is not Evaluator:
        return
    for metric in evaluator.metrics:
        # By name: there may be no MMDetection.
        if (f'{type(metric).__module__}.{type(metric).__name__}' !=
                'mmdet.evaluation.metrics.coco_metric.CocoMetric'
                or metric.format_only):
            continue
        for kind in metric.metrics:
            prefix = f'{metric.prefix}/' if metric.prefix else ''
            if kind != 'proposal':
                prefix += f'{kind}_'
            items = metric.metric_items or (_AR if kind == 'proposal' else
                                            _AP)
            if kind == 'proposal_fast' or any(
                    f'{prefix}{item}' in metrics for item in items):
                continue
            metrics.update({f'{prefix}{item}': 0.0 for item in items})
            runner.logger.warning(
                f'Nothing was detected: {prefix[:-1] or kind} is 0.')
