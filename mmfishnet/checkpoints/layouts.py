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


def to_last(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list]:
    """Give the tensors of a file the names of the authors' last commit.

    Args:
        state (Mapping[str, Tensor]): Weights in any of the authors' layouts,
            with nothing before their names.

    Returns:
        tuple[dict[str, Tensor], list[str]]: The tensors, and the names of
        those that have no place in the layout that the file has.
    """
    moved = {}
    for layouts in _FOURS:
        own = max(layouts, key=lambda layout: _fits(layout, state))
        moved.update(dict.fromkeys(layouts[0]))
        moved.update(zip(own, layouts[0]))
    found, unknown = {}, []
    for key, value in state.items():
        layer, _, leaf = key.removeprefix(_FISH).rpartition('.')
        if not key.startswith(_FISH) or layer not in moved:
            found[key] = value
        elif moved[layer]:
            found[f'{_FISH}{moved[layer]}.{leaf}'] = value
        else:
            unknown.append(key)
    return _with_first_norm(found), unknown


def _fits(layout: Iterable[str], state: Mapping[str, Tensor]) -> int:
    """How many of a layout's layers a file has, each of its kind."""
    weights = [state.get(f'{_FISH}{layer}.weight') for layer in layout]
    return sum(weight is not None and (weight.dim() > 1) == (i % 2 == 1)
               for i, weight in enumerate(weights))


def _with_first_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make the norm that a file's first shortcut has none of.

    There the convolution reads what the stem's ReLU and pooling left, so that
    norm and ReLU before it change nothing if the norm scales by 1 and shifts
    by 0. Its variance is 1 - eps, which makes that exact in float32.
    """
    conv = state.get(f'{_SHORTCUT}.weight')
    if conv is None or conv.dim() != 4 or any(
            key.startswith((f'{_SHORTCUT}.0.', f'{_SHORTCUT}.2.'))
            for key in state):
        return state
    del state[f'{_SHORTCUT}.weight']
    one = torch.ones_like(conv[0, :, 0, 0])
    norm = dict(weight=one, bias=one - 1, running_mean=one - 1,
                running_var=one - _EPS)
    if any(key.endswith('.num_batches_tracked') for key in state):
        norm['num_batches_tracked'] = torch.tensor(0, device=conv.device)
    return {
        **state, f'{_SHORTCUT}.2.weight': conv,
        **{f'{_SHORTCUT}.0.{leaf}': value for leaf, value in norm.items()}
    }
