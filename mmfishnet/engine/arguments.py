# Copyright (c) mmfishnet authors. All rights reserved.
"""The command line that train.py and test.py share, and its config."""
from __future__ import annotations

import os
import os.path as osp
from argparse import ArgumentParser, Namespace
from traceback import walk_tb

import torch
from mmengine.config import Config
from mmengine.device import get_device

from ..kinds import scope_of
from ..words import near
from .cpu import adapt_to_cpu
from .data_root import LOADERS, set_data_root
from .from_scratch import train_from_scratch
from .launch import LAUNCHERS
from .options import OptionsAction, merge_options
from .training import enable_amp


def add_common_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that train.py and test.py share.

    Args:
        parser (ArgumentParser): Parser of the tool.
    """
    parser.add_argument('--work-dir', help='where logs and results go')
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help='read every data set and annotation file of the config from '
        'this folder instead; it has the same layout. For MMDetection '
        'configs the environment variable MMDET_DATASETS does the same')
    parser.add_argument(
        '--from-scratch',
        action='store_true',
        help='train without pretrained weights: nothing is frozen, and '
        "trainable group norms take the place of the backbone's fixed batch "
        'norms. Its checkpoints say so, and are resumed and tested so')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        metavar='KEY=VALUE',
        help='override settings of the config, for example '
        'train_cfg.max_epochs=2 or model.backbone.out_indices="(0,1,2,3)"; '
        'the shell needs quotation marks around brackets and white space')
    parser.add_argument(
        '--no-check',
        dest='check',
        action='store_false',
        help='leave out the check of the data and of the config against each '
        'other that comes before the first step')
    parser.add_argument(
        '--launcher',
        choices=LAUNCHERS,
        default='none',
        help='what started this process, of several of one job')
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help='set by launchers that do not set LOCAL_RANK')


def load_config(args: Namespace) -> tuple[Config, list[str]]:
    """Read the config that the common arguments describe.

    Args:
        args (Namespace): Values of :func:`add_common_arguments`, and
            ``config``.

    Returns:
        tuple[Config, list[str]]: The config, and lines for the log.

    Raises:
        FileNotFoundError: If the config or the new data root is not there.
        ValueError: If the data root cannot be replaced.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config)
    cfg.launcher = args.launcher
    options = dict(args.cfg_options or {})
    data_root = options.pop('data_root', None)
    data_root = args.data_root or data_root
    notes = merge_options(cfg, options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = osp.join('./work_dirs', name)
    check_work_dir(cfg.work_dir)

    for loader in filter(None, map(cfg.get, LOADERS)):
        if scope_of(cfg) == 'mmpretrain':
            # What MMPretrain's own tools assume.
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers', True)
        if loader.get('num_workers', 0) == 0:
            loader.persistent_workers = False

    # MMDetection documents the variable, but rewrites configs of its 2.x
    # layout only.
    theirs = os.environ.get('MMDET_DATASETS')
    if data_root is not None:
        notes.append(set_data_root(cfg, data_root))
    elif theirs and scope_of(cfg) == 'mmdet':
        notes.append(set_data_root(cfg, theirs, 'MMDET_DATASETS'))
    if args.from_scratch:
        notes.append(train_from_scratch(cfg))
    if getattr(args, 'amp', False):
        enable_amp(cfg)
    if get_device() == 'cpu':
        notes += adapt_to_cpu(cfg)
    return cfg, list(filter(None, notes))


def read_config(path: str) -> Config:
    """Read a config, and say where it is wrong.

    Args:
        path (str): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no config, or its code raises something.
    """
    if not osp.isfile(path):
        folder, name = osp.split(osp.abspath(path))
        known = os.listdir(folder) if osp.isdir(folder) else ()
        raise FileNotFoundError(
            f'there is no config {path}{near(name, known)}; looked for '
            f'{osp.join(folder, name)}.')
    try:
        return Config.fromfile(path)
    except (OSError, ModuleNotFoundError, ValueError):
        raise  # which say what is missing
    except Exception as fault:
        # Of the config, or of a base or module that it reads.
        lines = [f'{frame.f_code.co_filename or path}, line {line}'
                 for frame, line in walk_tb(fault.__traceback__)
                 if frame.f_code.co_name == '<module>']
        where = f' in {lines[-1]}' if lines else ''
        raise ValueError(f'{path} is no config that can be read{where} '
                         f'({type(fault).__name__}: {fault}).') from fault


def check_work_dir(work_dir: str) -> None:
    """Check that a folder is there, or can be made, and can be written to.

    Args:
        work_dir (str): The folder.

    Raises:
        ValueError: If not.
    """
    path = osp.abspath(work_dir)
    while not osp.lexists(path):
        path = osp.dirname(path)
    if osp.isdir(path) and os.access(path, os.W_OK | os.X_OK):
        return
    reason = (f'nothing can be written to {path}' if osp.isdir(path) else
              f'{path} is a file')
    raise ValueError(f'the work directory {work_dir} cannot be used: '
                     f'{reason}. Name another one by --work-dir.')
