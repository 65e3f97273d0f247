# Copyright (c) mmfishnet authors. All rights reserved.
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.structures import InstanceData

pytest.importorskip('mmdet')
from mmdet.structures import DetDataSample  # noqa: E402

from mmfishnet.engine.tta import MaskTTAModel  # noqa: E402

H, W = 20, 30


class Detector(BaseModel):
    """Merging asks nothing of it."""

    def forward(self, *args):
        raise NotImplementedError


def merge(views, max_per_img):
    model = MaskTTAModel(
        module=Detector(),
        tta_cfg=ConfigDict(
            nms=dict(type='nms', iou_threshold=0.5), max_per_img=max_per_img))
    return model.merge_preds(views)


def view(boxes, scores, labels, direction=None):
    """What a detector predicts on the image or a mirror image of it."""
    masks = torch.zeros(len(boxes), H, W, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
        mask[y1:y2, x1:(x1 + x2) // 2] = True  # its left half
    boxes = boxes.clone()
    if direction in ('horizontal', 'diagonal'):
        boxes[:, [0, 2]] = W - boxes[:, [2, 0]]
        masks = masks.flip(2)
    if direction in ('vertical', 'diagonal'):
        boxes[:, [1, 3]] = H - boxes[:, [3, 1]]
        masks = masks.flip(1)
    sample = DetDataSample(
        metainfo=dict(
            ori_shape=(H, W),
            flip=direction is not None,
            flip_direction=direction))
    sample.pred_instances = InstanceData(
        bboxes=boxes, scores=scores, labels=labels, masks=masks)
    return sample


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
def test_masks_of_views_are_turned_back_and_merged(direction):
    boxes = torch.tensor([[2., 3, 12, 9], [15, 4, 29, 18], [1, 12, 7, 19]])
    labels = torch.tensor([0, 1, 0])
    seen = torch.tensor([0.9, 0.2, 0.6])
    # The mirror image sees the second object better, the third not at all.
    mirrored = torch.tensor([0.8, 0.7])
    merged, = merge([[
        view(boxes, seen, labels),
        view(boxes[:2], mirrored, labels[:2], direction)
    ]], 3)
    pred = merged.pred_instances
    expected = view(boxes[[0, 1, 2]], torch.tensor([0.9, 0.7, 0.6]), labels)
    for key in ('bboxes', 'scores', 'labels', 'masks'):
        assert torch.equal(pred[key], expected.pred_instances[key]), key


def test_limit_and_nothing_found():
    boxes = torch.tensor([[2., 3, 12, 9], [15, 4, 29, 18]])
    merged, empty = merge([
        [view(boxes, torch.tensor([0.1, 0.9]), torch.tensor([0, 0]))],
        [view(boxes[:0], torch.zeros(0), torch.zeros(0, dtype=torch.long))],
    ], 1)
    assert merged.pred_instances.bboxes.tolist() == boxes[1:].tolist()
    assert len(empty.pred_instances) == 0
