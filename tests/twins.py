# Copyright (c) mmfishnet authors. All rights reserved.
"""Jobs of others, each run by MMEngine's runner and by ours.

    python tests/twins.py [--classes] [NAME ...]

Stock configs of MMDetection, MMPretrain and MMSegmentation train two steps on
small data in the layout that they read, and validate; then the same job is
run by our runner, with its check. Both have to end, with the same losses and
metrics to the last digit, or both to refuse. Pictures and models are those of
the configs, at a smaller size and without pretrained weights; what a run draws
is seeded alike in both. With --classes, types are classes and there is no
default scope, as in pure-Python configs.
"""
from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from unittest.mock import patch

from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    TRANSFORMS,
)
from mmengine.runner import Runner
from torch.utils.data import DataLoader

import mmfishnet  # noqa: F401 (registers FishNet)
import stand_in_data
from mmfishnet.checks import checked
from mmfishnet.engine.build import build_runner
from mmfishnet.engine.exact.place import SeedHook, place
from mmfishnet.kinds import dicts_in, find_class

JOBS = {
    'two-stage': 'mmdet/faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'masks': 'mmdet/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'one-stage': 'mmdet/retinanet/retinanet_r18_fpn_1x_coco.py',
    'switched pipeline': 'mmdet/rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'mosaic': 'mmdet/yolox/yolox_tiny_8xb8-300e_coco.py',
    'DETR': 'mmdet/detr/detr_r18_8xb2-500e_coco.py',
    'semi-supervised': 'mmdet/soft_teacher/soft-teacher_faster-rcnn_r50-caffe_'
    'fpn_180k_semi-0.1-coco.py',
    'distillation': 'mmdet/ld/ld_r18-gflv1-r101_fpn_1x_coco.py',
    "tracking's detector": 'mmdet/sort/faster-rcnn_r50_fpn_8xb2-4e_'
    'mot17halftrain_test-mot17halfval.py',
    'VOC': 'mmdet/pascal_voc/retinanet_r50_fpn_1x_voc0712.py',
    'LVIS': 'mmdet/lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py',
    'OpenImages': 'mmdet/openimages/retinanet_r50_fpn_32xb2-1x_openimages.py',
    'panoptic': 'mmdet/panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
    'ImageNet': 'mmpretrain/resnet/resnet18_8xb32_in1k.py',
    'multi-label': 'mmpretrain/csra/resnet101-csra_1xb16_voc07-448px.py',
    'self-supervised': 'mmpretrain/simclr/simclr_resnet50_8xb32-coslr-200e_'
    'in1k.py',
    'segmentation': 'mmseg/segformer/segformer_mit-b0_8xb2-160k_ade20k-'
    '512x512.py',
}
SIDE, SIZES = 64, ('crop_size', 'size', 'scale', 'img_scale', 'pad_size')
REGISTRIES = (MODELS, DATASETS, TRANSFORMS, HOOKS, METRICS, DATA_SAMPLERS)


class Record(Hook):
    """Losses and metrics of a run, whose draws depend on the place alone."""

    priority = 'HIGHEST'

    def __init__(self) -> None:
        self.losses, self.metrics = [], {}
        self.seed = SeedHook()

    def before_train(self, runner) -> None:
        place(runner.train_dataloader, runner.seed)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.seed.before_train_iter(runner, batch_idx, data_batch)

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None) -> None:
        self.losses.append({k: float(v) for k, v in outputs.items()})

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.metrics = dict(metrics or {})


def shrink(node):
    """Smaller pictures, no weights to fetch; in place."""
    for key, value in list(node.items() if isinstance(node, dict) else
                           enumerate(node)):
        pair = isinstance(value, (list, tuple)) and len(value) == 2 and all(
            isinstance(v, int) and v > SIDE for v in value)
        if key in ('pretrained', 'teacher_ckpt') or key == 'init_cfg' and (
                isinstance(value, dict) and 'checkpoint' in value):
            node[key] = None
        elif key == 'teacher_config':  # which upstream reads at its root
            node[key] = str(stand_in_data.stock(
                f'mmdet/{value.removeprefix("configs/")}'))
        elif key == 'times':  # that data are repeated
            node[key] = 1
        elif key in SIZES and isinstance(value, int) and value > SIDE:
            node[key] = SIDE
        elif pair and (isinstance(value, tuple) or key in SIZES):
            node[key] = type(value)((SIDE, SIDE))
        elif isinstance(value, (dict, list)):
            shrink(value)


def short_job(path: Path) -> Config:
    """A config that trains two steps and validates."""
    cfg = Config.fromfile(path)
    for key in ('model', 'data_preprocessor', 'train_dataloader',
                'val_dataloader', 'custom_hooks'):
        if cfg.get(key):
            shrink(cfg[key])
    train = cfg.train_dataloader
    # Of several sources a sampler makes batches of the loader's size.
    if 'source_ratio' not in train.get('sampler', {}):
        train.batch_size = min(train.get('batch_size', 1), 2)
    if 'shuffle' in train.get('sampler', {}):
        train.sampler.shuffle = False
    for part in filter(cfg.get, stand_in_data.PARTS):
        cfg[part].update(num_workers=0, persistent_workers=False)
        if part != 'train_dataloader':
            cfg[part].batch_size = 1
        if cfg.default_scope == 'mmpretrain':  # a folder of each class is many
            for leaf in stand_in_data.leaves(cfg[part]):
                leaf['indices'] = 4
    if cfg.train_cfg.get('max_iters'):
        cfg.train_cfg.update(max_iters=2, val_interval=2)
    else:
        cfg.train_cfg.update(max_epochs=1)
        cfg.train_cfg.pop('dynamic_intervals', None)
    cfg.merge_from_dict({
        'randomness': dict(seed=0), 'load_from': None, 'log_level': 'ERROR',
        'default_hooks': dict(checkpoint=dict(save_last=False, interval=-1)),
        'visualizer': dict(type='Visualizer', vis_backends=[])})
    return cfg


def as_classes(cfg: Config) -> Config:
    """The same config with classes as types and no default scope, as
    MMDetection's pure-Python configs have it."""
    cfg = Config(cfg.to_dict())
    for node in dicts_in([cfg[key] for key in cfg]):
        if isinstance(node.get('type'), str):
            found = filter(None, (
                find_class(registry, node, cfg.default_scope)
                for registry in REGISTRIES))
            node['type'] = next(found, node['type'])
    cfg.default_scope = None
    return cfg


def run(cfg: Config, ours: bool) -> tuple:
    """Run a job; gives losses, metrics and what it ended with, if it did not
    come to its end."""
    record, folder = Record(), tempfile.mkdtemp()
    cfg = Config(ConfigDict(cfg.to_dict()))
    cfg.merge_from_dict(dict(
        work_dir=folder, experiment_name=Path(folder).name, launcher='none'))
    try:
        # To lay out the config, thrice, takes longer than all the rest.
        with patch('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (
                text, False)):
            runner = build_runner(cfg) if ours else Runner.from_cfg(cfg)
            assert isinstance(runner.train_dataloader, DataLoader)
            runner.register_hook(record)
            with checked(runner, ('train', 'val'), ours):
                runner.train()
    except (Exception, SystemExit) as error:
        return record.losses, record.metrics, f'{type(error).__name__}: ' \
            f'{str(error)[:200]}'
    return record.losses, record.metrics, None


def compare(name: str, root: str, classes: bool = False) -> str:
    """Run a job twice; gives a line that begins with 'equal' or not."""
    cfg = short_job(stand_in_data.stock(JOBS[name]))
    folder = tempfile.mkdtemp(dir=root)
    # A batch of several sources takes what each has of one shape.
    several = 'source_ratio' in cfg.train_dataloader.get('sampler', {})
    stand_in_data.make(cfg, folder, 16 if several else 3)
    with stand_in_data.chdir(folder):
        (losses, metrics, fault), (our_losses, our_metrics, our_fault) = (
            run(as_classes(cfg) if classes else cfg, ours)
            for ours in (False, True))
    if fault or our_fault:
        both = 'both refuse' if fault and our_fault else 'DIFFER'
        return f'{both}: {fault} | {our_fault}'
    # Ours may report more; nan is not equal to itself.
    values = [k for k, v in metrics.items()
              if k not in our_metrics or our_metrics[k] != v == v]
    if losses != our_losses or values:
        return (f'DIFFER: metrics {values}, losses {losses[:1]} '
                f'{our_losses[:1]}')
    return (f'equal: {len(losses)} steps, {len(metrics)} metrics, loss '
            f'{losses[0].get("loss", float("nan")):.4f}')


def main() -> int:
    warnings.simplefilter('ignore')
    MMLogger.get_instance('twins', log_level='ERROR')
    names = [name for name in sys.argv[1:] if name != '--classes']
    wrong = 0
    with tempfile.TemporaryDirectory() as root:
        for name in names or JOBS:
            said = compare(name, root, '--classes' in sys.argv)
            wrong += said.startswith('DIFFER')
            print(f'{name}: {said}', flush=True)
    print(f'{wrong} differ')
    return wrong > 0


if __name__ == '__main__':
    sys.exit(main())
