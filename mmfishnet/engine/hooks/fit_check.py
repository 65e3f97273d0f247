# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

from mmengine.hooks import Hook

from ...models.pretrained_module import check_fit


class FitCheckHook(Hook):
    """Refuse a checkpoint that does not fit the modules of ours in the model.

    MMEngine's runner loads what fits and only warns of the rest, so that a
    test would go on with initial weights.
    """

    def after_load_checkpoint(self, runner, checkpoint) -> None:
        check_fit(runner.model, checkpoint,
                  runner.cfg.get('load_from') or 'the checkpoint')
