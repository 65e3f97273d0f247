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

import importlib
import os
import sys
import tempfile
import warnings
from pathlib import Path

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
    'segmentation': 'mmseg/fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py',
}
SIDE = 64
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


def stock(name: str) -> Path:
    """A stock config, by its package and its path there."""
    package, _, path = name.partition('/')
    module = importlib.import_module(package)
    return Path(module.__file__).parent / '.mim' / 'configs' / path


def shrink(node):
    """Smaller pictures, no weights to fetch; in place."""
    for key, value in list(node.items() if isinstance(node, dict) else
                           enumerate(node)):
        if key == 'init_cfg' and isinstance(value, dict) and (
                'checkpoint' in value):
            node[key] = None
        elif key in ('pretrained', 'teacher_ckpt'):
            node[key] = None
        elif key == 'teacher_config':  # which upstream reads at its root
            node[key] = str(stock(f'mmdet/{value.removeprefix("configs/")}'))
        elif key in ('crop_size', 'size', 'scale', 'img_scale', 'pad_size'
                     ) and isinstance(value, int) and value > SIDE:
            node[key] = SIDE
        elif isinstance(value, tuple) and len(value) == 2 and all(
                isinstance(v, int) and v > SIDE for v in value):
            node[key] = (SIDE, SIDE)
        elif isinstance(value, list) and len(value) == 2 and all(
                isinstance(v, int) and v > SIDE for v in value
        ) and key in ('size', 'crop_size', 'scale'):
            node[key] = [SIDE, SIDE]
        elif isinstance(value, (dict, list)):
            shrink(value)


def short_job(path: Path) -> Config:
    """A config that trains two steps and validates."""
    cfg = Config.fromfile(path)
    for key in ('model', 'train_dataloader', 'val_dataloader',
                'custom_hooks'):
        if cfg.get(key):
            shrink(cfg[key])
    if 'data_preprocessor' in cfg:
        shrink(cfg.data_preprocessor)
    if cfg.default_scope == 'mmpretrain':  # a picture of each class is many
        for part in stand_in_data.PARTS:
            for leaf in stand_in_data.leaves(cfg.get(part)):
                leaf['indices'] = 4
    train = cfg.train_dataloader
    train.update(num_workers=0, persistent_workers=False)
    # Of several sources a sampler makes batches of the loader's size.
    if 'source_ratio' not in train.get('sampler', {}):
        train.batch_size = min(train.get('batch_size', 1), 2)
    if 'shuffle' in train.get('sampler', {}):
        train.sampler.shuffle = False
    for key in ('val_dataloader', 'test_dataloader'):
        if cfg.get(key):
            cfg[key].update(num_workers=0, persistent_workers=False,
                            batch_size=1)
    if cfg.train_cfg.get('max_iters'):
        cfg.train_cfg.update(max_iters=2, val_interval=2)
    else:
        cfg.train_cfg.update(max_epochs=1)
        cfg.train_cfg.pop('dynamic_intervals', None)
    cfg.merge_from_dict({
        'randomness': dict(seed=0), 'load_from': None, 'log_level': 'ERROR',
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


def run(cfg: Config, ours: bool) -> Record | Exception:
    """Run a job; gives what it recorded, or what it ended with."""
    record = Record()
    folder = tempfile.mkdtemp()
    cfg = Config(ConfigDict(cfg.to_dict()))
    cfg.work_dir = folder
    cfg.experiment_name = os.path.basename(folder)
    cfg.launcher = 'none'
    try:
        runner = build_runner(cfg) if ours else Runner.from_cfg(cfg)
        assert isinstance(runner.train_dataloader, DataLoader)
        runner.register_hook(record)
        with checked(runner, ('train', 'val'), ours):
            runner.train()
    except (Exception, SystemExit) as error:
        return error
    return record


def compare(name: str, root: str, classes: bool = False) -> str:
    """Run a job twice; gives a line that begins with 'equal' or not."""
    cfg = short_job(stock(JOBS[name]))
    folder = tempfile.mkdtemp(dir=root)
    # A batch of several sources takes what each has of one shape.
    several = 'source_ratio' in cfg.train_dataloader.get('sampler', {})
    stand_in_data.make(cfg, folder, 16 if several else 3)
    with stand_in_data.chdir(folder):
        theirs = run(as_classes(cfg) if classes else cfg, ours=False)
        ours = run(as_classes(cfg) if classes else cfg, ours=True)
    if isinstance(theirs, BaseException) or isinstance(ours, BaseException):
        both = isinstance(theirs, BaseException) and isinstance(
            ours, BaseException)
        words = [f'{type(e).__name__}: {str(e)[:200]}' if isinstance(
            e, BaseException) else 'ended' for e in (theirs, ours)]
        return f'{"both refuse" if both else "DIFFER"}: {" | ".join(words)}'
    common = theirs.metrics.keys() & ours.metrics.keys()
    differ = [i for i, (a, b) in enumerate(zip(theirs.losses, ours.losses))
              if a != b]
    values = [k for k in common if theirs.metrics[k] != ours.metrics[k]
              and theirs.metrics[k] == theirs.metrics[k]]
    if differ or values or len(theirs.losses) != len(ours.losses) or (
            theirs.metrics.keys() - ours.metrics.keys()):
        return (f'DIFFER: losses of steps {differ}, metrics {values}: '
                f'{theirs.losses[:1]} {ours.losses[:1]}')
    return (f'equal: {len(ours.losses)} steps, {len(common)} metrics, loss '
            f'{ours.losses[0].get("loss", float("nan")):.4f}')


def main() -> int:
    warnings.simplefilter('ignore')
    MMLogger.get_instance('twins', log_level='ERROR')
    wrong, names = 0, sys.argv[1:]
    classes = '--classes' in names
    names = [name for name in names if name != '--classes']
    with tempfile.TemporaryDirectory() as root:
        for name in names or JOBS:
            said = compare(name, root, classes)
            wrong += said.startswith('DIFFER')
            print(f'{name}: {said}', flush=True)
    print(f'{wrong} differ')
    return wrong > 0


if __name__ == '__main__':
    sys.exit(main())
