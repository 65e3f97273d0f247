# Copyright (c) mmfishnet authors. All rights reserved.
"""What tools/train.py and tools/test.py do to a config before it is run.

The functions that change a config do so in place and return what is worth a
line in the log, or None.
"""
from __future__ import annotations

import os
import os.path as osp
import zipfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from glob import escape, glob

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint

from ..checkpoints.pretrained import drop_pretrained, is_missing
from .launch import LAUNCHERS, explain_lost_peers, init_launcher

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')
BATCH_NORMS = ('BN', 'BN1d', 'BN2d', 'BN3d', 'SyncBN', 'MMSyncBN')


# Command line ---------------------------------------------------------------


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
        'norms. What was trained so has to be resumed and tested so')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, for example '
        'train_cfg.max_epochs=2 or model.backbone.out_indices="(0,1,2,3)"; '
        'quotation marks are needed around lists and tuples, and no white '
        'space is allowed in them')
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
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        name = osp.splitext(osp.basename(args.config))[0]
        cfg.work_dir = osp.join('./work_dirs', name)

    for loader in filter(None, map(cfg.get, LOADERS)):
        if cfg.get('default_scope') == 'mmpretrain':
            # What MMPretrain's own tools assume.
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('persistent_workers', True)
        if loader.get('num_workers', 0) == 0:
            loader.persistent_workers = False

    notes = [_choose_data_root(cfg, args.data_root)]
    if args.from_scratch:
        notes.append(train_from_scratch(cfg))
    if cfg.launcher != 'none' and get_device() == 'cpu':
        notes.append(adapt_to_cpu(cfg))
    return cfg, list(filter(None, notes))


@contextmanager
def short_errors() -> Iterator[None]:
    """Turn the errors that a user can put right into a message and an exit.

    Raises:
        SystemExit: In place of FileNotFoundError and ValueError.
    """
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'error: {error}') from None


# Data -----------------------------------------------------------------------


def _choose_data_root(cfg: Config, data_root: str | None) -> str | None:
    if data_root is not None:
        return set_data_root(cfg, data_root)
    # MMDetection documents the variable, but rewrites configs of its 2.x
    # layout only.
    data_root = os.environ.get('MMDET_DATASETS')
    if data_root and cfg.get('default_scope') == 'mmdet':
        return set_data_root(cfg, data_root, 'MMDET_DATASETS')
    return None


def set_data_root(cfg: Config,
                  data_root: str,
                  source: str = '--data-root') -> str:
    """Point every data set and evaluator at another folder.

    The old data root is what all ``data_root`` of the config's data sets have
    in common. It is replaced in every path below it in dataloaders and
    evaluators, at any depth, but for the paths of results (``out...``).

    Args:
        cfg (Config): Config, changed in place.
        data_root (str): Folder of the same layout as the old one.
        source (str): What the user set, for messages. Defaults to
            '--data-root'.

    Returns:
        str: A line for the log.

    Raises:
        FileNotFoundError: If ``data_root`` is not a folder.
        ValueError: If no data set of the config has a ``data_root``, or these
            have nothing in common.
    """
    if not osp.isdir(data_root):
        raise FileNotFoundError(
            f'{source}: the folder {data_root} does not exist '
            f'(looked for {osp.abspath(data_root)}).')
    parts = [cfg[key] for key in (*LOADERS, *EVALUATORS) if cfg.get(key)]
    # Each once: a config may use one dict in two places.
    nodes = {id(node): node for node in _dicts(parts)}.values()
    old_roots = {
        osp.normpath(root)
        for node in nodes if (root := node.get('data_root'))
    }
    if not old_roots:
        raise ValueError(
            f'{source}: no data set of the config has a data_root that could '
            'be replaced; set their paths by --cfg-options.')
    try:
        old = osp.commonpath(old_roots)
    except ValueError:  # absolute and relative ones
        old = ''
    if old in ('', '/'):
        raise ValueError(
            f'{source}: the data roots of the config, {sorted(old_roots)}, '
            'are not in one folder; set them by --cfg-options.')

    def move(value):
        if not isinstance(value, str) or not value:
            return value
        path = osp.normpath(value)
        if path != old and not path.startswith(osp.join(old, '')):
            return value
        moved = osp.join(data_root, osp.relpath(path, old))
        # Some data sets add strings, so a final slash matters.
        return osp.normpath(moved) + ('/' if value.endswith('/') else '')

    for node in nodes:
        for key, value in node.items():
            if key.startswith('out'):
                continue
            if isinstance(value, (list, tuple)):
                node[key] = type(value)(map(move, value))
            else:
                node[key] = move(value)
    if cfg.get('data_root'):
        cfg.data_root = move(cfg.data_root)
    return f'{source}: data are read from {data_root} instead of {old}'


def _dicts(node) -> Iterator[dict]:
    """Every dict at any depth of nested dicts and lists."""
    if isinstance(node, dict):
        yield node
        node = node.values()
    elif not isinstance(node, (list, tuple)):
        return
    for child in node:
        yield from _dicts(child)


# Training -------------------------------------------------------------------


def enable_amp(cfg: Config) -> str | None:
    """Switch to automatic mixed precision.

    Without a GPU the training stays in float32: MMEngine's wrapper refuses
    to run there, and MMCV's operators know no bfloat16 on a CPU.

    Args:
        cfg (Config): Config, changed in place.

    Returns:
        str: A line for the log, or None.

    Raises:
        ValueError: If the config's optimizer wrapper is one of another kind.
    """
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    name = kind if isinstance(kind, str) else kind.__name__
    if name not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(
            '--amp puts AmpOptimWrapper in the place of OptimWrapper, but '
            f'optim_wrapper.type of the config is {name}.')
    if get_device() == 'cpu':
        return '--amp has no effect without a GPU: training in float32'
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    return None


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by the number of images in a step.

    Args:
        cfg (Config): Config, changed in place.

    Raises:
        ValueError: If the config does not say for which batch size its
            learning rate is.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise ValueError(
            '--auto-scale-lr needs to know for which batch size the learning '
            'rate of the config is, and auto_scale_lr.base_batch_size is not '
            'set. Add it, for example by `--cfg-options '
            'auto_scale_lr.base_batch_size=16`.')
    cfg.auto_scale_lr.enable = True


def disable_validation(cfg: Config) -> None:
    """Train without evaluating in between.

    Args:
        cfg (Config): Config, changed in place.
    """
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None


def train_from_scratch(cfg: Config) -> str:
    """Train without pretrained weights.

    Nothing is loaded and nothing is frozen. Where the backbone's batch norms
    are fixed, which presumes trained ones, group norms (32 groups) take their
    place: the recipes that fix batch norms do so because an image or two a
    GPU are too few for its statistics.

    Args:
        cfg (Config): Config, changed in place.

    Returns:
        str: A line for the log.

    Raises:
        ValueError: If the model has no backbone.
    """
    if 'backbone' not in cfg.model:
        raise ValueError(
            '--from-scratch changes model.backbone, and the config has none.')
    backbone = cfg.model.backbone
    done = ['no pretrained weights']
    drop_pretrained(cfg.model)
    if backbone.get('frozen_stages', -1) >= 0:
        backbone.frozen_stages = -1
        done.append('no frozen stages')
    norm = backbone.get('norm_cfg', {})
    fixed = not norm.get('requires_grad', True) or backbone.get('norm_eval')
    if norm.get('type') in BATCH_NORMS and fixed:
        backbone.norm_cfg = dict(type='GN', num_groups=32, requires_grad=True)
        backbone.norm_eval = False
        done.append('trainable group norm (32 groups) instead of fixed '
                    'batch norm')
    return '--from-scratch: the backbone has ' + ', '.join(done)


def set_resume(cfg: Config,
               resume: str | None) -> tuple[str | None, list[str]]:
    """Decide from which checkpoint training goes on.

    Args:
        cfg (Config): Config, changed in place.
        resume (str, optional): Value of --resume: a checkpoint, 'auto' for
            the latest one of the work directory, or None for what the config
            says.

    Returns:
        tuple[str | None, list[str]]: The checkpoint, or None if training
        starts anew, and lines for the log.
    """
    if resume is None and not cfg.get('resume'):
        return None, []
    cfg.resume = True
    if resume not in (None, 'auto'):
        cfg.load_from = resume
    if resume != 'auto' and cfg.get('load_from') is not None:
        return cfg.load_from, []

    checkpoint, notes = find_checkpoint(cfg.work_dir)
    if checkpoint is None:
        # Start as without --resume, from load_from if the config has one.
        cfg.resume = False
        notes.append(f'no checkpoint in {cfg.work_dir}: training starts from '
                     'the beginning')
    else:
        # None where MMEngine finds the same: the config that it leaves in
        # the work directory then does not name this checkpoint for good.
        cfg.load_from = checkpoint if notes else None
    return checkpoint, [f'--resume: {note}' for note in notes]


def find_checkpoint(work_dir: str) -> tuple[str | None, list[str]]:
    """Find the latest complete checkpoint of a run.

    It is the one that MMEngine noted in ``last_checkpoint``, unless that file
    is gone (MMEngine removes old checkpoints before it saves a new one, and
    may be killed between the two; or the folder was moved) or damaged.

    Args:
        work_dir (str): Work directory of the run.

    Returns:
        tuple[str | None, list[str]]: The checkpoint, and what was wrong with
        those that come before it.
    """
    last = None
    if osp.isfile(osp.join(work_dir, 'last_checkpoint')):
        last = find_latest_checkpoint(work_dir)
    saved = [
        path for pattern in ('epoch_*.pth', 'iter_*.pth')
        for path in glob(osp.join(escape(work_dir), pattern))
    ]
    notes = []
    saved.sort(key=osp.getmtime, reverse=True)
    if last:
        saved = [last] + [p for p in saved if osp.abspath(p) != last]
    for path in saved:
        try:
            check_checkpoint(path)
        except (FileNotFoundError, ValueError) as error:
            notes.append(str(error))
            continue
        if path != last:
            notes.append(f'going on from {path}')
        return path, notes
    return None, notes


def check_checkpoint(checkpoint: str) -> None:
    """Check that a checkpoint is there and was written to its end.

    Args:
        checkpoint (str): Path or URL; a URL is left alone.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged.
    """
    if is_missing(checkpoint):
        raise FileNotFoundError(
            f'the checkpoint {checkpoint} does not exist.')
    if not osp.isfile(checkpoint):
        return
    with open(checkpoint, 'rb') as file:
        if file.read(2) not in (b'PK', b''):
            return  # not of torch's zip format: older than torch 1.6
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            damaged = archive.testzip() is not None
    except zipfile.BadZipFile:
        damaged = True
    if damaged:
        raise ValueError(
            f'the checkpoint {checkpoint} is damaged or cut short, as a '
            'process leaves it that is killed while it saves.')


# Testing --------------------------------------------------------------------


def enable_visualization(cfg: Config, show: bool, show_dir: str | None,
                         wait_time: float) -> None:
    """Draw the predictions on every test image.

    Args:
        cfg (Config): Config, changed in place.
        show (bool): Whether to open a window.
        show_dir (str, optional): Where to save the pictures. As in the
            scopes' own tools, MMDetection takes a relative path from the
            run's folder in the work directory and MMPretrain from the current
            one.
        wait_time (float): Seconds that each window stays.

    Raises:
        ValueError: If the config has no visualization hook or is of another
            scope than mmdet and mmpretrain.
    """
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ValueError('--show and --show-dir need default_hooks.'
                         'visualization, which the config does not have.')
    hook.update(show=show, wait_time=wait_time)
    if cfg.get('default_scope') == 'mmdet':
        hook.update(draw=True, test_out_dir=show_dir)
    elif cfg.get('default_scope') == 'mmpretrain':
        hook.update(enable=True, out_dir=show_dir)
        hook.setdefault('interval', 1)
    else:
        raise ValueError('--show and --show-dir work with configs of '
                         'MMDetection and MMPretrain, not of default_scope='
                         f'{cfg.get("default_scope")!r}.')


def enable_tta(cfg: Config) -> str | None:
    """Switch to test-time augmentation.

    Args:
        cfg (Config): Config, changed in place. Where it has no ``tta_model``
            or no ``tta_pipeline``, the image and its mirror image are merged.

    Returns:
        str: A line for the log, or None.

    Raises:
        ValueError: If there is no default for this config.
    """
    defaults = []
    if 'tta_model' not in cfg:
        if cfg.get('default_scope') == 'mmdet':
            from . import tta  # noqa: F401 (registers MaskTTAModel)
            cfg.tta_model = dict(
                type='mmfishnet.MaskTTAModel',
                tta_cfg=dict(
                    nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
        elif cfg.get('default_scope') == 'mmpretrain':
            cfg.tta_model = dict(type='AverageClsScoreTTA')
        else:
            raise ValueError('--tta: the config has no tta_model, and there '
                             'is no default for default_scope='
                             f'{cfg.get("default_scope")!r}.')
        defaults.append(f'tta_model={cfg.tta_model.type}')
    datasets = [
        node for node in _dicts(cfg.test_dataloader.dataset)
        if 'pipeline' in node
    ]
    if 'tta_pipeline' not in cfg:
        if not datasets:
            raise ValueError('--tta: test_dataloader.dataset has no pipeline; '
                             'set tta_pipeline.')
        *pipeline, pack = deepcopy(datasets[0].pipeline)
        if 'meta_keys' in pack:
            flip_keys = ('flip', 'flip_direction')
            pack.meta_keys = tuple(
                dict.fromkeys((*pack.meta_keys, *flip_keys)))
        flips = [dict(type='RandomFlip', prob=prob) for prob in (0., 1.)]
        views = dict(type='TestTimeAug', transforms=[flips, [pack]])
        cfg.tta_pipeline = [*pipeline, views]
        defaults.append('tta_pipeline=the image and its mirror image')
    for dataset in datasets:
        dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    if defaults:
        return '--tta: by default ' + ', '.join(defaults)
    return None


# Running --------------------------------------------------------------------


def adapt_to_cpu(cfg: Config) -> str | None:
    """Make a config run in several processes without GPUs.

    Args:
        cfg (Config): Config, changed in place.

    Returns:
        str: A line for the log, or None.
    """
    # MMEngine passes the process's GPU unless told otherwise.
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False))
    cfg.model_wrapper_cfg.device_ids = None

    synced = bool(cfg.pop('sync_bn', None))
    for node in _dicts(cfg.model):
        if node.get('type') == 'SyncBN':
            node.type = 'BN'
            synced = True
    if synced:
        return ('no GPU: SyncBN works on GPUs only, each process takes '
                'the statistics of its own images')
    return None


class _NormCheckHook(Hook):
    """Refuse a checkpoint whose norms are not those of the model.

    Batch norm and group norm have weights of the same names, so MMEngine
    would load one into the other and warn of missing statistics only.
    """

    def after_load_checkpoint(self, runner, checkpoint) -> None:
        model = runner.model
        while isinstance(model, BaseTTAModel) or is_model_wrapper(model):
            model = model.module
        state = checkpoint.get('state_dict', checkpoint)
        loaded = {key.removeprefix('module.') for key in state}
        for key in model.state_dict():
            norm, _, name = key.rpartition('.')
            if (name == 'running_mean' and key not in loaded
                    and f'{norm}.weight' in loaded):
                raise ValueError(
                    f'the checkpoint has no statistics for the batch norm '
                    f'{norm}: it was trained with another kind of norm. If '
                    'it was trained with --from-scratch, use that here too.')


def build_runner(cfg: Config,
                 notes: Sequence[str] = (),
                 checkpoint: str | None = None) -> Runner:
    """Build the runner of a config, in one process or one of several.

    Args:
        cfg (Config): Config.
        notes (Sequence[str]): Lines for the log.
        checkpoint (str, optional): What this process goes on from; all have
            to agree. Defaults to None.

    Returns:
        Runner: MMEngine's runner, or the one that ``runner_type`` of the
        config names.

    Raises:
        RuntimeError: If the processes of a job found different checkpoints.
        ValueError: If the launcher and the environment do not fit.
    """
    with short_errors():
        dist_cfg = cfg.get('env_cfg', {}).get('dist_cfg', {})
        init_launcher(cfg.launcher, dist_cfg.get('timeout'))
    with explain_lost_peers():
        if cfg.get('default_scope') == 'mmdet':
            from mmdet.utils import setup_cache_size_limit_of_dynamo
            setup_cache_size_limit_of_dynamo()
        if 'runner_type' in cfg:
            runner = RUNNERS.build(cfg)
        else:
            runner = Runner.from_cfg(cfg)
        runner.register_hook(_NormCheckHook())
        for note in notes:
            runner.logger.info(note)
        found = all_gather_object(checkpoint)
    if len(set(found)) > 1:
        raise RuntimeError(
            'the processes of this job would go on from different '
            'checkpoints: ' + ', '.join(
                f'rank {rank} from {path}' for rank, path in enumerate(found))
            + '. The work directory should be one that all hosts share.')
    return runner
