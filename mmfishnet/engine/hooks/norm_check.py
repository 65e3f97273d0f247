# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper


class NormCheckHook(Hook):
    """Refuse a checkpoint whose norms are not those of the model.

    Batch norm and group norm have weights of the same names, so MMEngine
    would load one into the other and warn of missing statistics only.
    """

    def after_load_checkpoint(self, runner, checkpoint) -> None:
        model = runner.model
        while isinstance(model, BaseTTAModel) or is_model_wrapper(model):
            model = model.module
        state = checkpoint.get('state_dict', checkpoint)
        loaded = {key.removeprefix('module.') for key in state}
        for key in model.state_dict():
            norm, _, name = key.rpartition('.')
            if (name == 'running_mean' and key not in loaded
                    and f'{norm}.weight' in loaded):
                raise ValueError(
                    f'the checkpoint has no statistics for the batch norm '
                    f'{norm}: it was trained with another kind of norm. If '
                    'it was trained with --from-scratch, use that here too.')
