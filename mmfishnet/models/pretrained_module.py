# Copyright (c) mmfishnet authors. All rights reserved.
"""Modules that load their own pretrained file."""
from __future__ import annotations

from collections.abc import Mapping

from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from ..checkpoints.fit import check_part, fit
from ..checkpoints.pretrained import has_scheme, is_pretrained
from ..checkpoints.read import CheckpointError, read_checkpoint
from ..checkpoints.weights import BACKBONE, strip, unwrap
from ..words import first_few


class PretrainedModule(BaseModule):
    """A module that takes care of ``init_cfg=dict(type='Pretrained')`` itself.

    MMEngine would load the file by name, and only warn of what does not fit.
    Here it is read without running code from it, translated if it is the
    authors' or pytorchcv's, and all that the module has must be in it. The
    keys of such an ``init_cfg`` are those of :func:`load_pretrained`; other
    initialisers, beside it in a list, are MMEngine's as ever and come before.

    Attributes:
        part (str): What stands before the module's names in a whole model.
    """

    part = BACKBONE

    def init_weights(self) -> None:
        """Initialise, and load the pretrained file last.

        Raises:
            CheckpointError: If the file does not fit; says how.
            FileNotFoundError: If there is no such file.
        """
        if self.is_init:
            super().init_weights()  # says so, and does nothing
            return
        init_cfg = self.init_cfg
        cfgs = [init_cfg] if isinstance(init_cfg, dict) else init_cfg or []
        self.init_cfg = [cfg for cfg in cfgs if not is_pretrained(cfg)]
        super().init_weights()
        self.init_cfg = init_cfg
        for cfg in filter(is_pretrained, cfgs):
            load_pretrained(
                self, **{k: v for k, v in cfg.items() if k != 'type'})

    @classmethod
    def from_pretrained(cls, checkpoint: str, *args, **kwargs):
        """Build the module with pretrained weights, without a config.

        Args:
            checkpoint (str): As in :func:`load_pretrained`, such as
                ``'mmfishnet://fishnet150'``.
            args, kwargs: Arguments of the class.

        Returns:
            PretrainedModule: The module, in training mode.

        Raises:
            CheckpointError: If the file does not fit; says how.
            DownloadError: If published weights could not be fetched.
            FileNotFoundError: If there is no such file.
        """
        module = cls(*args, **kwargs)
        load_pretrained(module, checkpoint)
        return module


def load_pretrained(module: PretrainedModule,
                    checkpoint: str,
                    prefix: str | None = None,
                    map_location='cpu',
                    adapt_stem: bool = False) -> None:
    """Load a file into a backbone or a score neck.

    Args:
        module (PretrainedModule): The module.
        checkpoint (str): File of the authors, of pytorchcv, or of ours (a
            whole model or this part of it), or a URL or another scheme that
            MMEngine knows, such as ``https://``.
        prefix (str, optional): What stands before the module's names in the
            file. Defaults to None: it is found.
        map_location (str | torch.device | Callable): Where the file's tensors
            go, as in :func:`torch.load`. Defaults to 'cpu'.
        adapt_stem (bool): Whether weights for three input channels are
            adapted to the number that the stem has: summed for one, repeated
            and divided for more. Defaults to False.

    Raises:
        CheckpointError: If the file is damaged, holds code, or does not fit.
        FileNotFoundError: If there is no such file.
    """
    name = type(module).__name__
    print_log(f'load {name} from: {checkpoint}', logger='current')
    if has_scheme(checkpoint):
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location)
    else:
        content = read_checkpoint(checkpoint, map_location)
    state = fit(content, module.state_dict(), checkpoint, name, module.part,
                prefix, adapt_stem)
    # What fit() lets be missing is all that may be.
    module.load_state_dict(state, strict=False)


def check_fit(model: nn.Module,
              checkpoint: Mapping,
              source: str = 'the checkpoint',
              heads: bool = False) -> None:
    """Check that the weights of a whole model fit it.

    MMEngine would load what fits and only warn of the rest.

    Args:
        model (nn.Module): A model.
        checkpoint (Mapping): The weights that are to be loaded, or what
            holds them as 'state_dict'.
        source (str): Where they are from, for messages. Defaults to 'the
            checkpoint'.
        heads (bool): Whether all of the model has to fit, as for a test, or
            only its modules of ours, as where a training starts from a
            classifier. If so, the weights are loaded. Defaults to False.

    Raises:
        CheckpointError: If those of a backbone or a score neck are not all
            there, or of another shape, or too many; with ``heads``, if any
            part would keep its initial weights. Names the tensors.
    """
    weights = checkpoint.get('state_dict', checkpoint)
    state = {unwrap(key): value for key, value in weights.items()}
    for name, module in model.named_modules():
        if not isinstance(module, PretrainedModule):
            continue
        prefix = unwrap(f'{name}.') if name else ''
        own = strip(state, prefix)
        kind = type(module).__name__
        if not own:
            raise CheckpointError(
                f'{source} holds nothing below {prefix}, where the model has '
                f'its {kind}: it holds {len(state)} tensors, named '
                f'{first_few(state)}.')
        check_part(own, module.state_dict(), source, kind, module.part)
    if heads:
        _check_heads(model, state, source)


def _check_heads(model: nn.Module, state: Mapping, source: str) -> None:
    """Load the weights, and refuse what leaves a part as it was made.

    They are loaded because only that tells: modules read old names, and adapt
    shapes, by hooks of their own.
    """
    own = {key: unwrap(key) for key in model.state_dict()}
    parameters = dict(model.named_parameters())
    wanted = {key: value for key, value in model.state_dict().items()
              if key in parameters
              or key.endswith(('.running_mean', '.running_var'))}
    try:
        missing = model.load_state_dict(
            {key: state[name] for key, name in own.items() if name in state},
            strict=False).missing_keys
        said = ''
    except RuntimeError as error:
        missing = [key for key, name in own.items() if name not in state]
        said = str(error)
    # What only a training reads may be missing.
    missing = [own[key] for key in missing
               if key in wanted and 'auxiliary_head' not in key]
    unfit = [
        f'{own[key]} {tuple(state[own[key]].shape)}, not {tuple(value.shape)}'
        for key, value in wanted.items() if f' {key}: copying' in said
    ]
    if missing:
        said = (f'{len(missing)} of {len(wanted)} tensors are missing: '
                f'{first_few(missing)}')
    if unfit:
        said = f'{len(unfit)} tensors have another shape: {first_few(unfit)}'
    if said:
        raise CheckpointError(
            f'{source} does not fit the model, {type(model).__name__}: {said}.'
            ' Is it the checkpoint of another config, or of other classes?')
