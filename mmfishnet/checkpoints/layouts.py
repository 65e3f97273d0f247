# Copyright (c) mmfishnet authors. All rights reserved.
"""The layouts of the authors' files.

Their code changed while they published: what their last commit calls one
name, files of before call another, and that name stands for something else
in yet another file. A layout is known by its keys and by their shapes.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

# A norm, a convolution, a norm and a convolution, in the bridge and at the
# end, below 'fish.fish.': as each layout calls them, the last commit's first.
_FOURS = (
    (('3.0.0', '3.0.2', '3.0.3', '3.1'),
     ('3.0.0', '3.1.0', '3.1.1', '3.1.3')),
    (('9.3.0', '9.3.2', '9.3.3', '9.4.1'),
     # fishnet150_ckpt_welltrained.tar
     ('9.3.0', '9.4.0', '9.4.1', '9.4.4'),
     # fishnet201_ckpt_welltrain.tar
     ('9.2.0', '9.3.0', '9.3.1', '9.3.4')))
_FISH = 'fish.fish.'
_SHORTCUT = f'{_FISH}0.0.0.shortcut'
_EPS = 1e-5  # of BatchNorm2d


def last_names(state: Mapping[str, Tensor]) -> dict[str, str | None]:
    """Tell what the authors' last commit calls the tensors of a file.

    Args:
        state (Mapping[str, Tensor]): Weights in any of the authors' layouts,
            with nothing before their names.

    Returns:
        dict[str, str | None]: Its name by the file's; None for what has no
        place in the layout that the file has.
    """
    names = {key: key for key in state}
    for layouts in _FOURS:
        last = layouts[0]
        own = max(layouts, key=lambda layout: _fits(layout, state))
        for key in state:
            layer, _, leaf = key.removeprefix(_FISH).rpartition('.')
            if layer in own:
                names[key] = f'{_FISH}{last[own.index(layer)]}.{leaf}'
            elif layer in last:
                names[key] = None
    if norm_of_nothing(state):
        names[f'{_SHORTCUT}.weight'] = f'{_SHORTCUT}.2.weight'
    return names


def _fits(layout: Iterable[str], state: Mapping[str, Tensor]) -> int:
    """How many of a layout's layers a file has, each of its kind."""
    weights = [state.get(f'{_FISH}{layer}.weight') for layer in layout]
    return sum(weight is not None and (weight.dim() > 1) == (i % 2 == 1)
               for i, weight in enumerate(weights))


def norm_of_nothing(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make the norm that a file's first shortcut has none of.

    There the convolution reads what the stem's ReLU and pooling left, so that
    norm and ReLU before it change nothing if the norm scales by 1 and shifts
    by 0. Its variance is 1 - eps, which makes that exact in float32.

    Args:
        state (Mapping[str, Tensor]): As in :func:`last_names`.

    Returns:
        dict[str, Tensor]: The norm, under the last commit's names; nothing
        where the file has one.
    """
    conv = state.get(f'{_SHORTCUT}.weight')
    if conv is None or conv.dim() != 4 or any(
            key.startswith((f'{_SHORTCUT}.0.', f'{_SHORTCUT}.2.'))
            for key in state):
        return {}
    one = torch.ones_like(conv[0, :, 0, 0])
    norm = dict(weight=one, bias=one - 1, running_mean=one - 1,
                running_var=one - _EPS)
    if any(key.endswith('.num_batches_tracked') for key in state):
        norm['num_batches_tracked'] = torch.tensor(0, device=conv.device)
    return {f'{_SHORTCUT}.0.{leaf}': value for leaf, value in norm.items()}
