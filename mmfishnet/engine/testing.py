# Copyright (c) mmfishnet authors. All rights reserved.
"""What the options of test.py do to a config, in place."""
from __future__ import annotations

from copy import deepcopy

from mmengine.config import Config, ConfigDict

from ..kinds import dicts_in
from .classes import model_class


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
    hook.update(show=show, wait_time=wait_time)
    if cfg.get('default_scope') == 'mmdet':
        key = 'test_out_dir'
        hook.draw = True
    elif cfg.get('default_scope') == 'mmpretrain':
        key = 'out_dir'
        hook.enable = True
        hook.setdefault('interval', 1)
    elif cfg.get('default_scope') == 'mmseg':
        key = None
        hook.update(draw=True)
        if show_dir:
            cfg.visualizer.save_dir = show_dir
    else:
        raise ValueError('--show and --show-dir work with configs of '
                         'MMDetection, MMPretrain and MMSegmentation, not of '
                         f'default_scope={cfg.get("default_scope")!r}.')
    if show_dir and key:
        hook[key] = show_dir
        cfg.default_hooks.visualization = dict(
            type='mmfishnet.ShowHook', hook=hook, key=key)


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
        _check_tta(cfg)
        if cfg.get('default_scope') == 'mmdet':
            from . import tta  # noqa: F401 (registers MaskTTAModel)
            cfg.tta_model = dict(
                type='mmfishnet.MaskTTAModel',
                tta_cfg=dict(
                    nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
        elif cfg.get('default_scope') == 'mmpretrain':
            cfg.tta_model = dict(type='AverageClsScoreTTA')
        elif cfg.get('default_scope') == 'mmseg':
            cfg.tta_model = dict(type='SegTTAModel')
        else:
            raise ValueError('--tta: the config has no tta_model, and there '
                             'is no default for default_scope='
                             f'{cfg.get("default_scope")!r}.')
        defaults.append(f'tta_model={cfg.tta_model.type}')
    datasets = [
        node for node in dicts_in(cfg.test_dataloader.dataset)
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


def _check_tta(cfg: Config) -> None:
    """Refuse a model whose predictions the default cannot merge."""
    if cfg.get('default_scope') not in ('mmdet', 'mmpretrain'):
        return
    cls = model_class(cfg.model, cfg.get('default_scope'))
    bases = {base.__name__ for base in cls.__mro__} if cls else set()
    if cfg.get('default_scope') == 'mmpretrain':
        what = 'scores of classes'
        able = 'BaseClassifier' in bases
    else:
        what = 'boxes, with or without masks'
        # SOLO's kind predicts masks without boxes.
        able = not bases & {
            'TwoStagePanopticSegmentor', 'MaskFormer', 'BaseMOTModel'
        } and ('SingleStageInstanceSegmentor' not in bases
               or cfg.model.get('bbox_head'))
    if cls and not able:
        raise ValueError(
            f'--tta: by default {what} are merged, and {cls.__name__} '
            'predicts something else. Test without --tta, or give the config '
            'a tta_model that merges it.')
