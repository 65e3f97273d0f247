# Copyright (c) mmfishnet authors. All rights reserved.
"""Load FishNet checkpoints of any format.

What MMEngine loads (``init_cfg``, ``load_from``, tools/test.py,
``init_detector``) comes past the two loaders at the end of this file, which
translate, and past :func:`fit_state_dict`, which checks.
"""
from __future__ import annotations

import os
import os.path as osp
from collections import OrderedDict
from collections.abc import Mapping
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from ..version import __version__
from .convert import (
    BACKBONE,
    CLASSIFIER,
    SCORE,
    CheckpointError,
    check,
    check_released,
    convert,
    describe,
    find_state_dict,
    identify,
    list_contents,
    normalize,
)
from .read import read_checkpoint

NECK = 'neck.'


def load_weights(model: nn.Module, path: str) -> None:
    """Load a FishNet checkpoint of any format into a model.

    Everything is checked before anything is loaded.

    Args:
        model (nn.Module): A FishNet or FishNeXt, or a model that has one as
            its ``backbone``. The score layers go to a classifier's ``neck``
            and ``head``; a head of another number of classes stays as it is.
            They are left out where a model has none.
        path (str): File of the authors, of pytorchcv, or of ours.

    Raises:
        CheckpointError: If the file is damaged, is no FishNet checkpoint, or
            does not fit the model.
        FileNotFoundError: If there is no such file.
        TypeError: If the model has no FishNet.
    """
    from ..models import FishNet, FishNetScore
    state = normalize(find_state_dict(read_checkpoint(path), path), path)
    if isinstance(model, FishNet):
        parts = {BACKBONE: model}
    elif isinstance(getattr(model, 'backbone', None), FishNet):
        parts = {BACKBONE: model.backbone}
        if isinstance(getattr(model, 'neck', None), FishNetScore):
            parts[NECK] = model.neck
            parts[CLASSIFIER] = model.head.fc
    else:
        raise TypeError(f'{type(model).__name__} is not a FishNet, and has '
                        'none as its backbone.')

    bias = f'{CLASSIFIER}bias'
    if CLASSIFIER in parts and bias in state:
        theirs, own = len(state[bias]), parts[CLASSIFIER].out_features
        if theirs != own:
            print_log(
                f'{path}: its classifier, of {theirs} classes, is left out; '
                f'the model has {own}.',
                logger='current')
            del parts[CLASSIFIER]
    for prefix, part in parts.items():
        _check_part(part, _select(state, prefix), prefix, path)
    for prefix, part in parts.items():
        # Stages that are not built, and counters that older torch did not
        # save, are all that may differ now.
        part.load_state_dict({
            key[len(prefix):]: value
            for key, value in _select(state, prefix).items()
        }, strict=False)


def convert_file(source: str, target: str, to: str = 'mmpretrain') -> str:
    """Convert a checkpoint file, see :func:`convert`.

    Args:
        source (str): File of the authors, of pytorchcv, or of ours.
        target (str): File to write; it appears only when it is complete.
        to (str): 'mmpretrain', 'mmdet' or 'official'. The authors' code takes
            the latter by ``model.load_state_dict(file['state_dict'])``, as
            their page says; it has no ``module.`` before the names. Defaults
            to 'mmpretrain'.

    Returns:
        str: What it holds, such as 'FishNet-150'.

    Raises:
        CheckpointError: If the file is damaged, or is not, or not completely,
            a FishNet checkpoint.
        FileNotFoundError: If there is no such file.
    """
    state = find_state_dict(read_checkpoint(source), source)
    state = convert(state, to, source)
    name = describe(normalize(state, source))
    if to == 'official':
        file = dict(arch=name.replace('-', '').lower(), state_dict=state)
    else:
        meta = dict(
            arch=name,
            converted_from=osp.basename(source),
            mmfishnet_version=__version__)
        file = dict(meta=meta, state_dict=state)
    os.makedirs(osp.dirname(osp.abspath(target)), exist_ok=True)
    partial = f'{target}.partial'
    try:
        torch.save(file, partial)
        os.replace(partial, target)
    finally:
        if osp.exists(partial):
            os.remove(partial)
    return name


def fit_state_dict(module: nn.Module, state_dict: dict[str, Tensor],
                   prefix: str, local_metadata: Mapping) -> None:
    """Make a state dict fit a module of ours, just before it is loaded.

    A dict that the module is given as a whole may have any format. One from
    a file must fit; one that the caller has made is left to torch.

    Args:
        module (nn.Module): A FishNet or a FishNetScore.
        state_dict (dict[str, Tensor]): The weights, changed in place.
        prefix (str): What is before the module's own names in them.
        local_metadata (Mapping): Metadata of the module, in which the loaders
            below note the file.

    Raises:
        CheckpointError: If a file does not fit.
    """
    from ..models import FishNet
    name = BACKBONE if isinstance(module, FishNet) else NECK
    origin = local_metadata.get('checkpoint')
    if origin is None and hasattr(module, '_params_init_info'):
        # Inside init_weights: an init_cfg of type Pretrained with a prefix.
        origin = dict(
            path='the checkpoint of init_cfg',
            contents=list_contents(state_dict))
    whole = {k.removeprefix('module.'): v for k, v in state_dict.items()}
    if not prefix and identify(whole):
        path = origin['path'] if origin else 'the state dict'
        own = _select(normalize(whole, path), name)
        state_dict.clear()
        state_dict.update((k[len(name):], v) for k, v in own.items())
    if origin is None:
        return
    own = {name + k[len(prefix):]: v for k, v in state_dict.items()}
    if name == BACKBONE and not identify(own):
        raise CheckpointError(f'{origin["path"]} is not a FishNet checkpoint: '
                              f'{origin["contents"]}.')
    _check_part(module, own, name, origin['path'])


def _select(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k.startswith(prefix)}


def _check_part(part: nn.Module, state: Mapping[str, Tensor], prefix: str,
                source: str) -> None:
    wanted = {prefix + k: v for k, v in part.state_dict().items()}
    if prefix != BACKBONE and not state:
        raise CheckpointError(
            f'{source} holds a backbone alone, without the score layers '
            f'({SCORE}, {CLASSIFIER}) that a classifier has. Name it in the '
            "backbone's init_cfg, or load it into model.backbone.")
    target = describe(wanted) if prefix == BACKBONE else type(part).__name__
    check(state, wanted, source, f'the model, {target}')


def _translate(checkpoint, path: str):
    """Give a FishNet checkpoint MMPretrain's names, and note its file's name.

    The weights in any other checkpoint are returned as they are.
    """
    try:
        state = find_state_dict(checkpoint, path)
    except CheckpointError:
        return checkpoint  # whoever asked for it may know what it is
    contents = list_contents(state)
    style = identify(state)
    if style not in ('mmpretrain', None):
        state = normalize(state, path)
        if style != 'backbone':
            check_released(state, path)
        checkpoint = dict(state_dict=state, meta={})
    nested = 'state_dict' in checkpoint
    holder = checkpoint['state_dict'] if nested else checkpoint
    noted = OrderedDict(holder)
    metadata = OrderedDict(getattr(holder, '_metadata', {}))
    for name in ('', 'backbone', 'neck'):
        metadata[name] = dict(
            metadata.get(name, {}),
            checkpoint=dict(path=path, contents=contents))
    noted._metadata = metadata
    return {**checkpoint, 'state_dict': noted} if nested else noted


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location=None):
    """MMEngine's loader of local files, made safe and multilingual.

    Args:
        filename (str): Path of a checkpoint of any model.
        map_location (str | torch.device | Callable, optional): Where the
            tensors go, as in :func:`torch.load`. Defaults to None.

    Returns:
        object: The checkpoint; that of a FishNet under MMPretrain's names.

    Raises:
        CheckpointError: If the file is damaged, or could not be read without
            running code from it, or is a foreign FishNet checkpoint that is
            not complete.
        FileNotFoundError: If there is no such file.
    """
    return _translate(read_checkpoint(filename, map_location), filename)


@CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), force=True)
def load_from_http(filename: str,
                   map_location=None,
                   model_dir: str | None = None,
                   progress: bool = os.isatty(0)):
    """MMEngine's loader of URLs, with :func:`load_from_local` behind it.

    Args:
        filename (str): URL of a checkpoint.
        map_location (str | torch.device | Callable, optional): Where the
            tensors go, as in :func:`torch.load`. Defaults to None.
        model_dir (str, optional): Folder that keeps the file. Defaults to
            None, that of torch.hub.
        progress (bool): Whether to show a progress bar. Defaults to whether
            there is a terminal.

    Returns:
        object: The checkpoint; that of a FishNet under MMPretrain's names.
    """
    folder = model_dir or osp.join(torch.hub.get_dir(), 'checkpoints')
    path = osp.join(folder, osp.basename(urlparse(filename).path))

    def download():
        if not osp.exists(path):
            os.makedirs(folder, exist_ok=True)
            torch.hub.download_url_to_file(filename, path, progress=progress)

    if is_main_process():
        download()
    barrier()
    download()  # on other hosts, which have other folders
    return load_from_local(path, map_location)
