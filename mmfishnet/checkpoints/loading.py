# Copyright (c) mmfishnet authors. All rights reserved.
"""What MMEngine's loading calls: our scheme, and safe reading for all."""
from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from mmengine.runner.checkpoint import CheckpointLoader

from .published import SCHEME, fetch_file, find_published
from .read import CheckpointError, read_checkpoint
from .weights import (
    BACKBONE,
    find_state_dict,
    identify,
    prefixes,
    translate,
)


@CheckpointLoader.register_scheme(SCHEME, force=True)
def load_from_mmfishnet(filename: str, map_location=None):
    """Load published weights, see :func:`.published.find_published`, as a
    whole classifier under our names."""
    return load_from_local(find_published(filename), map_location)


def use_safe_loading() -> None:
    """Let MMEngine read checkpoints without running code from them.

    From here on, in this process, whatever MMEngine loads from a file or a
    URL (``load_from``, ``--resume``, ``init_cfg``, ``load_checkpoint``) is
    read by :func:`read_checkpoint`, which refuses a file that could run code.
    FishNets of the authors' or of pytorchcv's come under our names, so that
    they can stand for a whole classifier; everything else comes as it is. Our
    tools do this; importing mmfishnet does not.
    """
    for schemes, loader in (('', load_from_local),
                            (('http://', 'https://'), load_from_http)):
        CheckpointLoader.register_scheme(schemes, loader, force=True)


def load_from_local(filename: str, map_location=None):
    """Take the place of MMEngine's loader of local files.

    Args, errors and what is returned are :func:`read_checkpoint`'s. Names
    change only where all of a file is a foreign FishNet (whose tensors all
    have to be known), or below a wrapper (``module.``), or where MMEngine
    would find no weights (``dict(model=...)``).
    """
    checkpoint = read_checkpoint(filename, map_location)
    try:
        state = find_state_dict(checkpoint, filename)
    except CheckpointError:
        return checkpoint  # whoever asked for it may know what it is
    style = identify(state)
    held = checkpoint.get('state_dict', checkpoint)  # where MMEngine looks
    as_it_is = style == 'mmpretrain' and [*state] == [
        key for key, value in held.items() if torch.is_tensor(value)]
    if not style or as_it_is or not _is_whole(state, style):
        return checkpoint
    return {
        **(checkpoint if 'state_dict' in checkpoint else dict(meta={})),
        'state_dict': translate(state, filename)
    }


def _is_whole(keys: Iterable[str], style: str) -> bool:
    """Whether all names in a file are below that of one model."""
    found = {prefix.removesuffix(BACKBONE) for prefix in prefixes(keys, style)}
    return len(found) == 1 and all(key.startswith(*found) for key in keys)


def load_from_http(filename: str,
                   map_location=None,
                   model_dir: str | None = None,
                   progress: bool = os.isatty(0)):
    """Take the place of MMEngine's loader of URLs; the file is kept in
    ``model_dir``, by default torch.hub's."""
    return load_from_local(
        fetch_file(filename, folder=model_dir, progress=progress),
        map_location)
