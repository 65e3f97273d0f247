# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

from collections.abc import Collection, Sequence

from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm

from .blocks import INIT_CFG
from .pretrained_module import PretrainedModule


class Backbone(PretrainedModule):
    """Base of backbones with a stem and stages that can be frozen.

    The subclass builds ``self.stem`` and a module for every name in
    ``stage_names``, in the order in which they are computed, and then calls
    :meth:`_freeze_stages`.

    Args:
        frozen_stages (int): Parts that are neither trained nor update their
            statistics: 0 is the stem, n the stem and the first n stages; -1
            freezes nothing.
        norm_eval (bool): Whether batch norm layers stay in evaluation mode,
            that is, keep their statistics.
        init_cfg (dict | list[dict], optional): Initialisation. Defaults to
            None: Kaiming for convolutions, ones for norms.

    Attributes:
        stage_names (Sequence[str]): The stages that were built.
    """

    stage_names: Sequence[str] = ()

    def __init__(self,
                 frozen_stages: int,
                 norm_eval: bool,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg or INIT_CFG)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

    def _check_choice(self,
                      argument: str,
                      value,
                      allowed: Collection,
                      also: str = '') -> None:
        if value not in allowed:
            raise ValueError(
                f'{type(self).__name__}: {argument}={value!r} is not allowed; '
                f'it should be one of {list(allowed)} {also}'.rstrip() + '.')

    def _check_out_indices(self, out_indices: Sequence[int],
                           num_features: int) -> None:
        for index in out_indices:
            self._check_choice('out_indices', index, range(num_features))
        if len(out_indices) == 0 or list(out_indices) != sorted(
                set(out_indices)):
            raise ValueError(
                f'{type(self).__name__}: out_indices={out_indices} should be '
                'ascending, without repetition, and not empty.')

    def get_layer_depth(self,
                        param_name: str,
                        prefix: str = '') -> tuple[int, int]:
        """Tell how deep a parameter lies, for learning rates that decay from
        layer to layer (``LearningRateDecayOptimWrapperConstructor`` of
        MMPretrain).

        The stem is layer 0; then every stage that was built is a layer, in
        the order in which they run, with the transfer that it joins; what
        comes after the stages, in the backbone or behind it, is the last
        layer.

        Args:
            param_name (str): Name of the parameter in the whole model.
            prefix (str): What the names of the backbone's own parameters
                start with. Defaults to ''.

        Returns:
            tuple[int, int]: The layer, counted from 0, and how many there
            are.
        """
        layers = ['stem', *self.stage_names]
        name = param_name.removeprefix(prefix).split('.')[0]
        if param_name.startswith(prefix) and name in layers:
            return layers.index(name), len(layers) + 1
        return len(layers), len(layers) + 1

    def _freeze_stages(self) -> None:
        for name in ['stem', *self.stage_names][:self.frozen_stages + 1]:
            module = getattr(self, name).eval()
            for param in module.parameters():
                param.requires_grad = False

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode; frozen stages and, with ``norm_eval``, all batch
        norms stay in evaluation mode.

        Args:
            mode (bool): Training or evaluation. Defaults to True.

        Returns:
            Backbone: The model itself.
        """
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
