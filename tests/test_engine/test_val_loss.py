# Copyright (c) mmfishnet authors. All rights reserved.
"""Validation losses of a detector, a classifier and a segmenter."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmfishnet.datasets import draw_classification, draw_coco
from mmfishnet.engine.build import build_runner
from mmfishnet.engine.exact.place import seed_here
from mmfishnet.engine.hooks import ValLossHook

CONFIGS = Path(__file__).parents[2] / 'configs/shapes'


def check_targets(package, batch, truth):
    """The truth is where it is in the resized picture."""
    for image, sample in zip(batch['inputs'], batch['data_samples']):
        if package == 'mmseg':
            assert sample.gt_sem_seg.shape == image.shape[1:]
        elif package == 'mmdet':
            wanted, = (item for item in map(truth.get_data_info,
                                            range(len(truth)))
                       if item['img_path'] == sample.img_path)
            boxes = torch.tensor([i['bbox'] for i in wanted['instances']])
            torch.testing.assert_close(
                sample.gt_instances.bboxes.tensor,
                boxes * torch.tensor(sample.scale_factor).repeat(2),
                check_dtype=False)
            assert len(sample.gt_instances.masks) == len(boxes)


@pytest.mark.parametrize('name, package', [
    ('mask_rcnn_fishnet_shapes', 'mmdet'),
    ('fishnet_tiny_shapes', 'mmpretrain'),
    ('semantic_fpn_fishnet_shapes', 'mmseg'),
])
def test_losses_of_validation(tmp_path, name, package):
    """They are those of the pictures as the training would take them, and the
    training goes on as without."""
    pytest.importorskip(package)
    if package == 'mmpretrain':
        draw_classification(tmp_path, 12, 12)
    else:
        draw_coco(tmp_path, 2, 3, size=96)
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(tmp_path)
    if package == 'mmdet':
        cfg.val_evaluator.ann_file = str(
            tmp_path / 'annotations/instances_val2017.json')
    cfg.model.backbone.init_cfg = None
    cfg.update(work_dir=str(tmp_path / 'run'), custom_hooks=[],
               experiment_name=name, launcher='none')
    DefaultScope.get_instance(name, scope_name=package)
    runner = build_runner(cfg)
    hook, model = ValLossHook(), runner.model
    hook.before_train(runner)

    before = {k: v.clone() for k, v in model.state_dict().items()}
    seed_here(5)
    drawn = torch.rand(3)
    seed_here(5)
    found = [{'mine': 1}, {}]
    for metrics in found:
        hook.after_val_epoch(runner, metrics)
    assert torch.equal(torch.rand(3), drawn)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0,
                               atol=0)
    assert found[0].pop('mine') == 1 and found[0] == found[1]

    sums, count = 0., 0
    model.eval()
    seed_here(runner.seed)
    for batch in hook.dataloader:
        check_targets(package, batch, runner.val_dataloader.dataset)
        data = model.data_preprocessor(batch, False)
        with torch.no_grad():
            losses = model.loss(data['inputs'], data['data_samples'])
        sums += len(data['inputs']) * sum(
            float(torch.as_tensor(sum(v) if isinstance(v, list) else v
                                  ).mean())
            for k, v in losses.items() if 'loss' in k)
        count += len(data['inputs'])
    assert count >= 3 and 'val_loss' in found[0]
    assert found[0]['val_loss'] == pytest.approx(sums / count, rel=1e-5)
