# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

from mmengine.hooks import Hook

from ...models.pretrained_module import check_fit
from ..bare import bare_model


class FitCheckHook(Hook):
    """Refuse a checkpoint that does not fit the model.

    MMEngine's runner loads what fits and only warns of the rest, so that a
    test would go on with initial weights, and give their AP.

    Args:
        heads (bool): Whether all of the model has to fit, as for a test or a
            run that goes on; otherwise its modules of ours, as where a
            training starts from other weights. Defaults to False.
    """

    def __init__(self, heads: bool = False) -> None:
        self.heads = heads

    def after_load_checkpoint(self, runner, checkpoint) -> None:
        """Compare the checkpoint's tensors with the model's."""
        check_fit(
            bare_model(runner.model),
            checkpoint,
            runner.cfg.get('load_from') or 'the checkpoint',
            heads=self.heads)
