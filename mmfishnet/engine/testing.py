# Copyright (c) mmfishnet authors. All rights reserved.
"""What the options of test.py do to a config, in place."""
from __future__ import annotations

import os.path as osp
from copy import deepcopy

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

from ..kinds import dicts_in, find_class, scope_of

# The argument of each scope's visualization hook for the folder;
# MMSegmentation's visualizer has that.
_SHOW = dict(mmdet='test_out_dir', mmpretrain='out_dir', mmseg=None)


def enable_visualization(cfg: Config, show: bool, show_dir: str | None,
                         wait_time: float) -> None:
    """Draw the predictions on every test image.

    Args:
        cfg (Config): Config, changed in place.
        show (bool): Whether to open a window.
        show_dir (str, optional): Where to save the pictures. As in the
            scopes' own tools, MMDetection takes a relative path from the
            run's folder in the work directory, MMPretrain and MMSegmentation
            (which puts a folder vis_data/vis_image there) from the current
            one.
        wait_time (float): Seconds that each window stays.

    Raises:
        ValueError: If the config has no visualization hook or is of another
            scope than mmdet, mmpretrain and mmseg.
    """
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ValueError('--show and --show-dir need default_hooks.'
                         'visualization, which the config does not have.')
    scope = scope_of(cfg)
    if scope not in _SHOW:
        raise ValueError('--show and --show-dir work with configs of '
                         'MMDetection, MMPretrain and MMSegmentation, not of '
                         f'default_scope={scope!r}.')
    hook.update(show=show, wait_time=wait_time)
    if scope == 'mmpretrain':
        hook.enable = True
        hook.setdefault('interval', 1)
    else:
        hook.draw = True
    key = _SHOW[scope]
    if show_dir and key:
        hook[key] = show_dir
        cfg.default_hooks.visualization = dict(
            type='mmfishnet.ShowHook', hook=hook, key=key)
    elif show_dir:
        cfg.visualizer.save_dir = show_dir


def pictures_folder(runner, show_dir: str) -> str:
    """Where a test with ``--show-dir`` leaves its pictures.

    Args:
        runner (Runner): Of the test.
        show_dir (str): The option's value.

    Returns:
        str: The folder, see :func:`enable_visualization`.
    """
    scope = scope_of(runner.cfg)
    if scope == 'mmdet':
        return osp.join(runner.work_dir, runner.timestamp, show_dir)
    inner = 'vis_data/vis_image' if scope == 'mmseg' else ''
    return osp.join(osp.abspath(show_dir), inner)


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
    scope = scope_of(cfg)
    if 'tta_model' not in cfg:
        cfg.tta_model = _default_tta_model(cfg, scope)
        defaults.append(f'tta_model={cfg.tta_model.type}')
    datasets = [node for node in dicts_in(cfg.test_dataloader.dataset)
                if 'pipeline' in node]
    if 'tta_pipeline' not in cfg:
        if not datasets:
            raise ValueError('--tta: test_dataloader.dataset has no pipeline; '
                             'set tta_pipeline.')
        *pipeline, pack = deepcopy(datasets[0].pipeline)
        if 'meta_keys' in pack:
            keys = (*pack.meta_keys, 'flip', 'flip_direction')
            pack.meta_keys = tuple(dict.fromkeys(keys))
        # MMPretrain flips by MMCV's own.
        flip = 'RandomFlip'
        if scope in ('mmdet', 'mmseg'):
            flip = f'{scope}.{flip}'
        flips = [dict(type=flip, prob=prob) for prob in (0., 1.)]
        views = dict(type='TestTimeAug', transforms=[flips, [pack]])
        cfg.tta_pipeline = [*pipeline, views]
        defaults.append('tta_pipeline=the image and its mirror image')
    for dataset in datasets:
        dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    return '--tta: by default ' + ', '.join(defaults) if defaults else None


def _default_tta_model(cfg: Config, scope: str | None) -> dict:
    """What merges views; refuses a model whose predictions it cannot."""
    cls = find_class(MODELS, cfg.get('model'), cfg.get('default_scope'))
    bases = {base.__name__ for base in cls.__mro__} if cls else set()
    if scope == 'mmdet':
        from . import tta  # noqa: F401 (registers MaskTTAModel)
        what = 'boxes, with or without masks'
        # SOLO's kind predicts masks without boxes.
        able = not bases & {
            'TwoStagePanopticSegmentor', 'MaskFormer', 'BaseMOTModel'
        } and ('SingleStageInstanceSegmentor' not in bases
               or cfg.model.get('bbox_head'))
        model = dict(
            type='mmfishnet.MaskTTAModel',
            tta_cfg=dict(
                nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
    elif scope == 'mmpretrain':
        what, able = 'scores of classes', 'BaseClassifier' in bases
        model = dict(type='mmpretrain.AverageClsScoreTTA')
    elif scope == 'mmseg':
        what, able = 'scores of pixels', True
        model = dict(type='mmseg.SegTTAModel')
    else:
        raise ValueError('--tta: the config has no tta_model, and there '
                         f'is no default for default_scope={scope!r}.')
    if cls and not able:
        raise ValueError(
            f'--tta: by default {what} are merged, and {cls.__name__} '
            'predicts something else. Test without --tta, or give the config '
            'a tta_model that merges it.')
    return ConfigDict(model)
