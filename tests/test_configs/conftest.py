# Copyright (c) mmfishnet authors. All rights reserved.
import json

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset

# (height, width): one whose shorter side decides about its size, one whose
# longer side does, and one upright.
SIZES = ((100, 120), (100, 200), (120, 100))


@pytest.fixture(scope='session')
def tiny_coco(tmp_path_factory):
    """A folder laid out as COCO 2017 with COCO-stuff, three images a split."""
    root = tmp_path_factory.mktemp('coco')
    rng = np.random.default_rng(0)
    (root / 'annotations').mkdir()
    categories = [
        dict(id=i + 1, name=name)
        for i, name in enumerate(CocoDataset.METAINFO['classes'])
    ]
    for split in ('train', 'val', 'test'):
        (root / f'{split}2017').mkdir()
        maps = root / 'stuffthingmaps' / f'{split}2017'
        maps.mkdir(parents=True)
        images, annotations = [], []
        for i, (height, width) in enumerate(SIZES):
            name = f'{i:012d}'
            pixels = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
            cv2.imwrite(str(root / f'{split}2017' / f'{name}.jpg'), pixels)
            cv2.imwrite(str(maps / f'{name}.png'), pixels[..., 0] % 183)
            images.append(
                dict(
                    id=i, file_name=f'{name}.jpg', height=height, width=width))
            annotations.append(
                dict(
                    id=i + 1,
                    image_id=i,
                    category_id=i + 1,
                    iscrowd=0,
                    bbox=[20, 10, 60, 70],
                    area=60 * 70,
                    segmentation=[[20, 10, 80, 10, 80, 80, 20, 80]]))
        content = dict(images=images, categories=categories)
        if split == 'test':
            file = 'image_info_test-dev2017.json'
        else:
            file = f'instances_{split}2017.json'
            content['annotations'] = annotations
        (root / 'annotations' / file).write_text(json.dumps(content))
    return root
