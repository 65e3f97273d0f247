# Copyright (c) mmfishnet authors. All rights reserved.
"""Validation losses of a detector, a classifier and a segmenter."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope

from mmfishnet.datasets import draw_classification, draw_coco
from mmfishnet.engine.bare import bare_model
from mmfishnet.engine.build import build_runner
from mmfishnet.engine.exact.place import seed_here

CONFIGS = Path(__file__).parents[2] / 'configs/shapes'


class Record(Hook):
    """Losses of steps, statistics after validation, metrics."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.losses, self.statistics, self.metrics = [], [], {}

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        self.losses.append(outputs['loss'].item())

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = dict(metrics)
        self.statistics.append({
            k: v.clone() for k, v in runner.model.state_dict().items()})


@pytest.mark.slow
@pytest.mark.parametrize('name, package', [
    ('mask_rcnn_fishnet_shapes', 'mmdet'),
    ('fishnet_tiny_shapes', 'mmpretrain'),
    ('semantic_fpn_fishnet_shapes', 'mmseg'),
])
def test_losses_of_validation(tmp_path, name, package):
    pytest.importorskip(package)
    if package == 'mmpretrain':
        draw_classification(tmp_path, 12, 12)
    else:
        draw_coco(tmp_path, 4, 2, size=96)
    found = {}
    for hooks in ([], [dict(type='mmfishnet.ValLossHook')]):
        cfg = Config.fromfile(CONFIGS / f'{name}.py')
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.update(
                batch_size=2, num_workers=0, persistent_workers=False)
            loader.dataset.data_root = str(tmp_path)
        if package == 'mmdet':
            cfg.val_evaluator.ann_file = str(
                tmp_path / 'annotations/instances_val2017.json')
        cfg.model.backbone.init_cfg = None
        cfg.train_cfg.update(max_epochs=2, val_interval=1)
        cfg.param_scheduler = None
        cfg.update(
            work_dir=str(tmp_path / f'run{len(hooks)}'), custom_hooks=hooks,
            experiment_name=f'{name}{len(hooks)}', launcher='none')
        DefaultScope.get_instance(f'{name}{len(hooks)}', scope_name=package)
        runner = build_runner(cfg)
        record = Record()
        runner.register_hook(record)
        runner.train()
        found[len(hooks)] = record, runner

    without, with_hook = found[0][0], found[1][0]
    # The training goes on as without.
    assert with_hook.losses == without.losses
    for a, b in zip(with_hook.statistics, without.statistics):
        assert all(torch.equal(a[k], b[k]) for k in b)
    assert with_hook.metrics.keys() - without.metrics.keys() >= {'val_loss'}
    assert not any('val_loss' in key for key in without.metrics)

    # By hand, of the pictures as the training would take them.
    runner = found[1][1]
    model = bare_model(runner.model).eval()
    hook, = (h for h in runner.hooks if type(h).__name__ == 'ValLossHook')
    total, count = 0., 0
    seed_here(runner.seed)
    for batch in hook.dataloader:
        if package == 'mmdet':
            for sample in batch['data_samples']:
                scale = torch.tensor(sample.scale_factor).repeat(2)
                truth = runner.val_dataloader.dataset
                wanted = next(
                    item for item in map(truth.get_data_info,
                                         range(len(truth)))
                    if item['img_path'] == sample.img_path)
                boxes = torch.tensor(
                    [i['bbox'] for i in wanted['instances']])
                torch.testing.assert_close(
                    sample.gt_instances.bboxes.tensor, boxes * scale,
                    check_dtype=False)
                assert len(sample.gt_instances.masks) == len(boxes)
        elif package == 'mmseg':
            for image, sample in zip(batch['inputs'], batch['data_samples']):
                assert sample.gt_sem_seg.shape == image.shape[1:]
        data = model.data_preprocessor(batch, False)
        with torch.no_grad():
            losses = model.loss(data['inputs'], data['data_samples'])
        total += sum(
            float(torch.as_tensor(v if not isinstance(v, list) else sum(v)
                                  ).mean())
            for k, v in losses.items() if 'loss' in k) * len(data['inputs'])
        count += len(data['inputs'])
    assert with_hook.metrics['val_loss'] == pytest.approx(
        total / count, rel=1e-5)
