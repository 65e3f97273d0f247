"""Tiles find what there is: here by a detector that makes no mistakes."""
import cv2
import numpy as np
import pytest
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from mmfishnet.apis.inputs import as_loaded
from mmfishnet.apis.tiles import predict_tiles

SIZE = (300, 437)


def scene():
    """Objects (a label image, class by object), some over several tiles."""
    objects = np.zeros(SIZE, np.uint8)
    cv2.ellipse(objects, (200, 150), (180, 30), 20, 0, 360, 1, -1)  # long
    cv2.rectangle(objects, (10, 10), (60, 50), 2, -1)
    cv2.rectangle(objects, (61, 10), (110, 50), 3, -1)  # its neighbour
    cv2.circle(objects, (95, 250), 20, 4, -1)
    cv2.circle(objects, (95, 250), 8, 0, -1)  # a hole
    cv2.circle(objects, (380, 60), 40, 5, -1)
    cv2.circle(objects, (380, 60), 15, 6, -1)  # lies on it
    return objects, {1: 0, 2: 0, 3: 0, 4: 1, 5: 0, 6: 0}


def picture(objects):
    return as_loaded(np.repeat(objects[..., None], 3, axis=2))


def detector(kinds, masks):
    """Finds what of each object is in a tile."""
    def run(batch):
        found = []
        for data in batch:
            image = data['img'][..., 0]
            here = [i for i in np.unique(image) if i]
            parts = [image == i for i in here]
            boxes = np.array([cv2.boundingRect(part.astype(np.uint8))
                              for part in parts], float).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            instances = InstanceData(
                bboxes=boxes, labels=np.array([kinds[i] for i in here], int),
                scores=np.array([part.sum() / 1e5 for part in parts], float))
            if masks:
                instances.masks = np.array(parts).reshape(-1, *image.shape)
            found.append((instances, None, None))
        return found
    return run


@pytest.mark.parametrize('tile', [64, 100, 200, 500])
def test_masks_are_those_of_the_whole_picture(tile):
    objects, kinds = scene()
    found = predict_tiles(detector(kinds, True), picture(objects), tile, 3)
    masks = [coco_mask.decode(mask).astype(bool) for mask in found.masks]
    # Each object once, none joined with another.
    assert len(masks) == len(kinds)
    for mask, box, label in zip(masks, found.bboxes, found.labels):
        i, = np.unique(objects[mask])
        assert (mask == (objects == i)).all() and label == kinds[i]
        x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
        assert box.tolist() == [x, y, x + w, y + h]
    assert (np.diff(found.scores) <= 0).all()


def test_boxes_and_nothing_and_hundreds():
    objects, kinds = scene()
    objects[objects == 6] = 5
    found, whole = (
        predict_tiles(detector(kinds, False), picture(objects), tile, 4)
        for tile in (200, 500))
    assert 'masks' not in found
    assert sorted(found.bboxes.tolist()) == sorted(whole.bboxes.tolist())
    assert not len(predict_tiles(
        detector(kinds, True), picture(np.zeros(SIZE)), 100, 4))

    objects = np.zeros((240, 240), np.uint16)
    for i, (y, x) in enumerate(np.ndindex(20, 20), 1):
        objects[12 * y + 1:12 * y + 11, 12 * x + 1:12 * x + 11] = i
    kinds = dict.fromkeys(range(1, 401), 0)
    found = predict_tiles(detector(kinds, True), picture(objects), 100, 4)
    assert [coco_mask.area(mask) for mask in found.masks] == [100] * 400
