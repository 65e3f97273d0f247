# Copyright (c) mmfishnet authors. All rights reserved.
"""What a training step keeps and holds, in bytes."""
from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmfishnet.models.blocks import Stage
from mmfishnet.models.built import find_tensors, keep_modes


def _tensors(tree) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


class Meter(TorchDispatchMode):
    """Counts what operators' outputs hold.

    Attributes:
        peak (int): The most bytes of tensors that lived at a time, of those
            that came to be while it counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._live = 0
        self._known = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        returned = func(*args, **kwargs)
        given = {x.untyped_storage()._cdata for x in _tensors((args, kwargs))}
        for x in _tensors(returned):
            storage = x.untyped_storage()
            key = storage._cdata
            if key not in given and key not in self._known:
                self._known[key] = storage.nbytes()
                self._live += storage.nbytes()
                weakref.finalize(storage, self._free, key)
        self.peak = max(self.peak, self._live)
        return returned

    def _free(self, key: int) -> None:
        self._live -= self._known.pop(key)


def measure_kept_bytes(model: nn.Module, images: Tensor,
                       is_part: bool = False) -> int:
    """Measure what autograd keeps of a training forward, in bytes.

    Every tensor that a node of the graph saves is caught as it is saved, and
    its storage is counted once. Parameters and buffers, which are there
    anyway, are left out. The model is run once in training mode, which
    updates the statistics of its norm layers; on the device 'meta' the same
    graph is recorded, with the same sizes, and nothing computed. If it is a
    part of another, its norms stay in the modes that they are in, and what
    it gets is there anyway.
    """
    def key(tensor: Tensor) -> int:
        # Unlike data_ptr, different for each storage on 'meta' as well.
        return tensor.untyped_storage()._cdata

    own = {key(tensor) for tensor in (*model.parameters(), *model.buffers())}
    if is_part:
        own.add(key(images))
    modes = nullcontext() if is_part else keep_modes(model, train=True)
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage, name = tensor.untyped_storage(), key(tensor)
        if name not in own and name not in kept:
            kept[name] = storage.nbytes()
            # A node that leads to no output goes, and its address comes back.
            weakref.finalize(storage, kept.pop, name, None)
        return tensor

    with modes, torch.enable_grad(), \
            torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        outputs = model(images)
    if not any(output.requires_grad for output in find_tensors(outputs)):
        raise ValueError('the model has nothing to train: autograd kept '
                         'nothing.')
    return sum(kept.values())


def _recomputed_parts(backbone: nn.Module) -> Iterator[nn.Module]:
    """The modules that ``with_cp`` recomputes, each in one piece."""
    for module in backbone.modules():
        if isinstance(module, Stage):
            yield from filter(None, (module.refine, module.transfer))
        elif hasattr(module, 'with_cp') and module is not backbone:
            yield module


def measure_recomputed(backbone: nn.Module, image: Tensor) -> int:
    """Bytes that ``with_cp`` recomputes at a time of a backbone that has it,
    on or off: what autograd keeps of the largest part, beyond its input; 0
    where no part has it."""
    backbone = deepcopy(backbone)
    for module in backbone.modules():
        if hasattr(module, 'with_cp'):
            module.with_cp = False
    inputs = {}
    for part in _recomputed_parts(backbone):
        part.register_forward_pre_hook(
            lambda part, args: inputs.setdefault(part, args[0]))
    # MMDetection's ResNet returns nothing from train().
    backbone.train()
    with torch.no_grad():
        backbone(image)
    return max(
        (measure_kept_bytes(part, x.requires_grad_(), is_part=True)
         for part, x in inputs.items()), default=0)
