# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import TestLoop, ValLoop

_COCO = 'mmdet.evaluation.metrics.coco_metric.CocoMetric'
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
        name = f'{type(metric).__module__}.{type(metric).__name__}'
        if name != _COCO or metric.format_only:
            continue
        for kind in {*metric.metrics} - {'proposal_fast'}:
            prefix = f'{metric.prefix}/' if metric.prefix else ''
            names = _AR
            if kind != 'proposal':
                prefix, names = f'{prefix}{kind}_', _AP
            items = [prefix + item for item in metric.metric_items or names]
            if not any(item in metrics for item in items):
                metrics.update(dict.fromkeys(items, 0.0))
                runner.logger.warning(
                    f'Nothing was detected: {prefix[:-1] or kind} is 0.')
