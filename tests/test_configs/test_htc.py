# Copyright (c) mmfishnet authors. All rights reserved.
"""The challenge entry, and deformable convolution in FishNet."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.ops import DeformConv2d
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

import mmfishnet  # noqa: F401
from mmfishnet.engine.data_root import set_data_root
from mmfishnet.engine.from_scratch import train_from_scratch
from mmfishnet.models import FishNet, FishNeXt

CONFIGS = Path(__file__).parents[2] / 'configs'
ARCH = dict(
    tail=[1, 1, 1],
    bridge=1,
    body=[1, 1, 1],
    head=[1, 1, 1],
    body_transfer=[1, 1, 1],
    head_transfer=[1, 1, 1])
DCN = dict(type='DCN', deform_groups=1)


def test_deformable_convolution_starts_as_a_plain_one():
    stages = ('bridge', 'body2', 'head3')
    torch.manual_seed(0)
    deformable = FishNeXt(ARCH, dcn=DCN, stage_with_dcn=stages).eval()
    deformable.init_weights()
    plain = FishNeXt(ARCH).eval()
    missing, surplus = plain.load_state_dict(
        deformable.state_dict(), strict=False)
    assert not missing
    # bridge, body2 and its transfer, head3 and its transfer
    assert len(surplus) == 5 * 2
    assert all('conv_offset' in key for key in surplus)
    for key, module in deformable.named_modules():
        if isinstance(module, DeformConv2d):
            assert key.startswith(stages)
            same = plain.get_submodule(key)
            for name in ('groups', 'dilation', 'padding', 'stride'):
                assert getattr(module, name) == getattr(same, name)
    images = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        for ours, theirs in zip(deformable(images), plain(images)):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('arguments, message', [
    (dict(dcn=DCN, stage_with_dcn=('head4', )), 'head4.*head3'),
    (dict(dcn=DCN), 'should be given together'),
    (dict(stage_with_dcn=('head3', )), 'should be given together'),
    (dict(dcn=DCN, stage_with_dcn=('head3', ), out_indices=(0, )), 'head3'),
])
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FishNet(ARCH, **arguments)


def test_built_as_shipped():
    cfg = Config.fromfile(CONFIGS / 'htc_fishnext229_fpn.py')
    init_default_scope('mmdet')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert type(model).__name__ == 'HybridTaskCascade'
    fish = model.backbone
    assert type(fish) is FishNeXt
    assert fish.arch['tail'] == FishNeXt.arch_settings[229]['tail']
    deformable = {
        key.split('.')[0]
        for key, module in fish.named_modules()
        if isinstance(module, DeformConv2d)
    }
    # Those which give what the detector reads at strides 8 to 32
    assert deformable == {'head2', 'head3'}
    assert model.roi_head.with_semantic
    assert len(model.roi_head.mask_head) == 3
    channels = tuple(conv.in_channels for conv in model.neck.lateral_convs)
    assert channels == fish.out_channels


@pytest.fixture(scope='module')
def cfg(tiny_coco, tmp_path_factory):
    cfg = Config.fromfile(CONFIGS / 'htc_fishnext229_fpn_testdev.py')
    set_data_root(cfg, str(tiny_coco))
    train_from_scratch(cfg)  # fixed norms presume trained weights
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.work_dir = str(tmp_path_factory.mktemp('htc'))
    cfg.log_level = 'ERROR'
    cfg.default_hooks.checkpoint.save_optimizer = False
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.test_evaluator.outfile_prefix = f'{cfg.work_dir}/results'
    return cfg


def test_multi_scale(cfg):
    init_default_scope('mmdet')
    dataset = Runner.build_dataloader(cfg.train_dataloader, seed=0).dataset
    sides = np.array(
        [sorted(dataset[0]['inputs'].shape[1:]) for _ in range(6)])
    assert len(np.unique(sides[:, 0])) > 1
    assert sides.min() >= 400
    assert (sides <= (1400, 1600)).all()

    views = Compose(cfg.tta_pipeline)(
        dict(img_path=str(next(Path(cfg.data_root).glob('test2017/*.jpg')))))
    sides = [min(image.shape[1:]) for image in views['inputs']]
    assert sides == [s for s in (600, 800, 1000, 1200, 1400) for _ in '01']
    assert [s.flip for s in views['data_samples']] == [False, True] * 5


def test_training_step_and_files_for_the_server(cfg, tiny_coco, call_tool):
    """With small images, few regions and a block in each stage."""
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        for transform in loader.dataset.pipeline:
            if 'Resize' in transform.type:
                # DCN needs 3x3 pixels at stride 32.
                transform.update(scale=(192, 96), keep_ratio=True)
                transform.type = 'Resize'
    cfg.train_dataloader.dataset.indices = 1
    cfg.train_cfg.max_epochs = 1
    cfg.model.backbone.depth = ARCH
    for head, train_cfg in zip(cfg.model.roi_head.bbox_head,
                               cfg.model.train_cfg.rcnn):
        head.fc_out_channels = 16
        train_cfg.sampler.num = 16
    cfg.model.test_cfg.rpn.max_per_img = 20
    cfg.model.test_cfg.rcnn.max_per_img = 10
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    before = {k: v.clone() for k, v in runner.model.state_dict().items()}
    runner.train()
    losses = {
        key: runner.message_hub.get_scalar(key).current()
        for key in runner.message_hub.log_scalars if 'loss' in key
    }
    expected = {'train/loss', 'train/loss_rpn_cls', 'train/loss_semantic_seg'}
    expected |= {f'train/s{i}.loss_{x}' for i in range(3)
                 for x in ('cls', 'bbox', 'mask')}  # yapf: disable
    assert expected <= set(losses)
    assert all(0 <= loss < 100 for loss in losses.values())
    assert losses['train/loss_semantic_seg'] > 0
    after = runner.model.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    for key in ('backbone.stem.0.weight',
                'backbone.head3.refine.0.conv2.conv_offset.weight',
                'roi_head.semantic_head.conv_logits.weight',
                'roi_head.mask_head.2.conv_logits.weight'):
        assert not torch.equal(before[key], after[key])

    cfg.dump(f'{cfg.work_dir}/small.py')
    done = call_tool('test', f'{cfg.work_dir}/small.py',
                     f'{cfg.work_dir}/epoch_1.pth')
    assert done.returncode == 0, done.stderr
    for task in 'bbox', 'segm':
        check_file(f'{cfg.test_evaluator.outfile_prefix}.{task}.json',
                   tiny_coco, task)


def check_file(path, tiny_coco, task):
    truth = COCO(tiny_coco / 'annotations' / 'image_info_test-dev2017.json')
    found = json.loads(Path(path).read_text())
    assert found
    for detection in found:
        assert detection['category_id'] in truth.cats
        image = truth.imgs[detection['image_id']]
        assert 0 <= detection['score'] <= 1
        if task == 'segm':
            rle = detection['segmentation']
            assert isinstance(rle['counts'], str)
            mask = coco_mask.decode(rle)
            assert mask.shape == (image['height'], image['width'])
        else:
            x, y, w, h = detection['bbox']
            assert x >= 0 and y >= 0
            assert x + w <= image['width'] + 1e-3
            assert y + h <= image['height'] + 1e-3
    loaded = truth.loadRes(path)
    assert len(loaded.anns) == len(found)
    assert set(loaded.getImgIds()) == set(truth.getImgIds())
