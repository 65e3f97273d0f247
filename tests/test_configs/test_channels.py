# Copyright (c) mmfishnet authors. All rights reserved.
"""Images of one, four and eight channels, of 8 and 16 bits, end to end."""
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmfishnet.engine.data_root import set_data_root

pytest.importorskip('mmdet')

CONFIGS = Path(__file__).parents[2] / 'configs'
TINY = Config.fromfile(CONFIGS / '_base_' / 'backbones' / 'tiny.py')


def gray(path, pixels):
    cv2.imwrite(str(path), pixels)  # in colour, as it may be


def gray16(path, pixels):
    cv2.imwrite(str(path), pixels[..., 0].astype(np.uint16) * 70, )


def rgbn(path, pixels):
    cv2.imwrite(str(path), np.dstack([pixels, pixels[..., :1]]))


def bands8(path, pixels):
    tifffile = pytest.importorskip('tifffile')
    bands = np.dstack([pixels, pixels, pixels[..., :2]]).astype(np.uint16)
    tifffile.imwrite(path, bands * 70, photometric='minisblack')


@pytest.mark.parametrize('write, channels, highest, suffix', [
    (gray, 1, 255, '.jpg'), (gray16, 1, 255 * 70, '.png'),
    (rgbn, 4, 255, '.png'), (bands8, 8, 255 * 70, '.tif')
])
def test_end_to_end(write, channels, highest, suffix, tiny_coco, tmp_path):
    """What files hold reaches the stem; a step trains it; a test scores."""
    shutil.copytree(tiny_coco, tmp_path / 'coco')
    for split in ('train2017', 'val2017'):
        for path in sorted((tmp_path / 'coco' / split).iterdir()):
            pixels = cv2.imread(str(path))
            path.unlink()
            write(path.with_suffix(suffix), pixels)
    for path in (tmp_path / 'coco/annotations').iterdir():
        path.write_text(path.read_text().replace('.jpg', suffix))

    cfg = Config.fromfile(
        CONFIGS / f'channels/mask_rcnn_fishnet150_fpn_{write.__name__}.py')
    set_data_root(cfg, str(tmp_path / 'coco'))
    cfg.model.backbone.depth = TINY.tiny_fishnet.depth
    cfg.model.neck.in_channels = TINY.tiny_fishnet_channels
    cfg.merge_from_dict({
        'model.roi_head.bbox_head.fc_out_channels': 16,
        'model.train_cfg.rcnn.sampler.num': 16,
        'model.test_cfg.rpn.max_per_img': 20,
        'model.test_cfg.rcnn.score_thr': 0,
        'model.test_cfg.rcnn.max_per_img': 5,
        'train_cfg.max_epochs': 1,
        'train_dataloader.dataset.indices': 1,
    })
    for loader in (cfg.train_dataloader, cfg.val_dataloader,
                   cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        for transform in loader.dataset.pipeline:
            if transform.type == 'Resize':
                transform.scale = (128, 96)
    cfg.merge_from_dict(
        dict(
            work_dir=str(tmp_path / 'work'),
            log_level='ERROR',
            default_hooks=dict(checkpoint=None)))
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    stem = runner.model.backbone.stem[0]
    assert stem.in_channels == channels
    seen = []
    stem.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].detach()))
    before = stem.weight.detach().clone()

    runner.train()
    assert not torch.equal(stem.weight, before)
    assert all(p.isfinite().all() for p in runner.model.parameters())
    mean, = cfg.model.data_preprocessor.mean
    std, = cfg.model.data_preprocessor.std
    for images in seen:
        assert images.shape[1] == channels
        # Not cut at 255, not turned to 8 bits, and the padding (0) aside.
        assert images.max() <= (highest - mean) / std + 0.1
        assert images.max() > (0.7 * highest - mean) / std

    metrics = runner.test()
    assert 0 <= metrics['coco/segm_mAP'] <= 1
