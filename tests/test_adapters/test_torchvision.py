# Copyright (c) mmfishnet authors. All rights reserved.
import pytest
import torch
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN

from fish import TINY
from mmfishnet.adapters.torchvision import BackboneWithFPN
from mmfishnet.models import FishNet


@pytest.mark.parametrize('detector', [MaskRCNN, KeypointRCNN])
def test_detectors(detector):
    """A training step that reaches every weight, and a prediction. Both are
    FasterRCNN with a branch more."""
    assert issubclass(detector, FasterRCNN)
    points = dict(num_keypoints=5) if detector is KeypointRCNN else {}
    model = detector(
        BackboneWithFPN(FishNet(TINY), 32), num_classes=4, min_size=96,
        max_size=128, box_detections_per_img=8, box_score_thresh=0,
        box_batch_size_per_image=32, **points)
    images = [torch.rand(3, 96, 128), torch.rand(3, 80, 100)]
    boxes = torch.tensor([[10., 10., 70., 60.], [30., 20., 90., 75.]])
    targets = []
    for image in images:
        masks = torch.zeros(2, *image.shape[1:], dtype=torch.uint8)
        masks[:, 20:50, 35:60] = 1
        # x, y and whether it is seen; two boxes, five points in each.
        points = torch.tensor([40., 40., 1.]).expand(2, 5, 3)
        targets.append(dict(boxes=boxes, labels=torch.tensor([1, 3]),
                            masks=masks, keypoints=points))
    losses = model(images, targets)
    assert ('loss_mask' in losses) == (detector is MaskRCNN)
    assert ('loss_keypoint' in losses) == (detector is KeypointRCNN)
    sum(losses.values()).backward()
    for key, param in model.backbone.named_parameters():
        assert param.grad is not None and param.grad.isfinite().all(), key
        assert param.grad.any(), key

    with torch.no_grad():
        found = model.eval()(images)
    for image, sample in zip(images, found):
        assert 0 < len(sample['boxes']) <= 8
        assert sample['labels'].min() >= 1 and sample['labels'].max() <= 3
        if detector is MaskRCNN:
            assert sample['masks'].shape[2:] == image.shape[1:]
        if detector is KeypointRCNN:
            assert sample['keypoints'].shape == (len(sample['boxes']), 5, 3)


def test_pyramid():
    """The levels are the backbone's, finest first, and one more; levels can
    be left out."""
    fish = FishNet(TINY, out_indices=(1, 3)).eval()
    model = BackboneWithFPN(fish, 24).eval()
    image = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        levels = model(image)
        # Only the finest level reads it.
        lateral = model.fpn.inner_blocks[0](fish(image)[0])
        coarse = model.fpn.inner_blocks[1](fish(image)[1])
        finest = model.fpn.layer_blocks[0](
            lateral + coarse.repeat_interleave(4, 2).repeat_interleave(4, 3))
    assert {key: tuple(level.shape) for key, level in levels.items()} == {
        '0': (1, 24, 8, 16),
        '1': (1, 24, 2, 4),
        'pool': (1, 24, 1, 2)
    }
    torch.testing.assert_close(levels['0'], finest)
