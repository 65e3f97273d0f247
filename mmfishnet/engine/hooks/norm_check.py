# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

import re

from mmengine.hooks import Hook

from ...checkpoints import CheckpointError
from ..bare import bare_model

# Many backbones name a norm after its kind: `bn1` is `gn1` elsewhere.
_NAMED = re.compile(r'(?<![^.])(bn|gn|ln|in)(?=\d*$)')


class NormCheckHook(Hook):
    """Refuse a checkpoint whose norms are not those of the model.

    Batch norm and group norm have weights of the same names, so MMEngine
    would load one into the other, or leave a norm as it is, and warn only.
    """

    def after_load_checkpoint(self, runner, checkpoint) -> None:
        """Compare the norms of both."""
        model = bare_model(runner.model)
        state = checkpoint.get('state_dict', checkpoint)
        theirs = _norms(key.removeprefix('module.') for key in state)
        for norm, batch_norm in _norms(model.state_dict()).items():
            other = theirs.get(_NAMED.sub('?', norm))
            if other is None or other == batch_norm:
                continue
            kinds = ['another kind of norm', 'batch norm']
            raise CheckpointError(
                f'the norms of the checkpoint are not those of the model: '
                f'{norm} is {kinds[batch_norm]} in the model and '
                f'{kinds[other]} in the checkpoint. If one of them is of a '
                'run with --from-scratch, which puts group norm in the place '
                'of fixed batch norm, use that for both or for none.')


def _norms(keys) -> dict[str, bool]:
    """What may be a norm in a state dict: whether it is a batch norm."""
    keys = set(keys)
    found = {}
    for key in keys:
        owner, _, name = key.rpartition('.')
        if name == 'bias' and f'{owner}.weight' in keys:
            found[owner] = f'{owner}.running_mean' in keys
    return {
        **found,
        **{_NAMED.sub('?', owner): batch for owner, batch in found.items()}
    }
