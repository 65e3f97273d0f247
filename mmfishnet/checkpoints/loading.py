# Copyright (c) mmfishnet authors. All rights reserved.
"""Safe reading for all that a process loads."""
from __future__ import annotations

import os
import os.path as osp
from collections.abc import Mapping
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.runner.checkpoint import CheckpointLoader

from .read import CheckpointError, read_checkpoint
from .weights import find_state_dict, identify, translate


def use_safe_loading() -> None:
    """Let MMEngine read checkpoints without running code from them.

    From here on, in this process, whatever MMEngine loads from a file or a
    URL (``load_from``, ``--resume``, ``init_cfg``, ``load_checkpoint``) is
    read by :func:`read_checkpoint`, which refuses a file that could run code.
    FishNets of the authors' or of pytorchcv's, or under a wrapper's names,
    come under our names, so that they can stand for a whole classifier;
    everything else comes as it is. Our tools do this; importing mmfishnet
    does not.
    """
    for prefixes, loader in (('', load_from_local),
                             (('http://', 'https://'), load_from_http)):
        CheckpointLoader.register_scheme(prefixes, loader, force=True)


def load_from_local(filename: str, map_location=None):
    """Take the place of MMEngine's loader of local files.

    Args:
        filename (str): Path of a checkpoint of any model.
        map_location (str | torch.device | Callable, optional): Where the
            tensors go, as in :func:`torch.load`. Defaults to None.

    Returns:
        object: The checkpoint; that of a FishNet under our names.

    Raises:
        CheckpointError: If the file is damaged, or could not be read without
            running code from it, or is a foreign FishNet's with tensors that
            are unknown.
        FileNotFoundError: If there is no such file.
    """
    checkpoint = read_checkpoint(filename, map_location)
    try:
        state = find_state_dict(checkpoint, filename)
    except CheckpointError:
        return checkpoint  # whoever asked for it may know what it is
    style = identify(state)
    if style is None:
        return checkpoint
    try:
        ours = translate(state, filename)
    except CheckpointError:
        if style == 'mmpretrain':
            return checkpoint  # such as a teacher and a student
        raise
    held = checkpoint.get('state_dict')
    if not isinstance(held, Mapping):
        return dict(state_dict=ours, meta={})
    # As it is where there was nothing to do: it has torch's _metadata.
    return checkpoint if held.keys() == ours.keys() else {
        **checkpoint, 'state_dict': ours}


def load_from_http(filename: str,
                   map_location=None,
                   model_dir: str | None = None,
                   progress: bool = os.isatty(0)):
    """Take the place of MMEngine's loader of URLs.

    Args:
        filename (str): URL of a checkpoint.
        map_location (str | torch.device | Callable, optional): Where the
            tensors go, as in :func:`torch.load`. Defaults to None.
        model_dir (str, optional): Folder that keeps the file. Defaults to
            None, that of torch.hub.
        progress (bool): Whether to show a progress bar. Defaults to whether
            there is a terminal.

    Returns:
        object: The checkpoint, as from :func:`load_from_local`.
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
