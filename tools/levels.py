# Copyright (c) mmfishnet authors. All rights reserved.
"""Draw what a classifier, a detector and a segmenter of drawn shapes predict.

One row an image: its class, its boxes and masks, its pixels. Images of one
large object are taken, of which all three can speak.
"""
import argparse
from pathlib import Path

import cv2
import numpy as np
from pycocotools.coco import COCO

import mmfishnet  # noqa: F401 (registers FishNet)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ('classifier', 'detector', 'segmenter'):
        parser.add_argument(
            f'--{name}', required=True, metavar='FILE',
            help='checkpoint of a run, which carries its config')
    parser.add_argument(
        '--data-root', type=Path, default='data/shapes',
        help='a set of draw_shapes.py for detection (default: %(default)s)')
    parser.add_argument('--out', type=Path, required=True,
                        help='the picture to write')
    parser.add_argument('--rows', type=int, default=4,
                        help='images (default: 4)')
    return parser.parse_args()


def large_objects(data_root):
    """Images not trained on, with one object of half the width or more: one
    image of each class."""
    coco = COCO(str(data_root / 'annotations/instances_val2017.json'))
    chosen = {}
    for info in coco.dataset['images']:
        found = coco.imgToAnns[info['id']]
        if len(found) == 1 and max(found[0]['bbox'][2:]) > info['width'] / 2:
            chosen.setdefault(found[0]['category_id'], info['file_name'])
    if not chosen:
        raise SystemExit(f'error: {data_root}/val2017 has no image of one '
                         'large object.')
    return [cv2.imread(str(data_root / 'val2017' / name))
            for name in chosen.values()]


def main():
    args = parse_args()
    # Takes seconds; --help does not need them.
    from mmfishnet.apis.predict import Predictor
    from mmfishnet.checkpoints import use_safe_loading
    from mmfishnet.engine.noise import leave_out_noise
    from mmfishnet.visualization import (
        beside,
        draw_instances,
        draw_pixels,
        draw_scores,
    )

    use_safe_loading()
    leave_out_noise()
    images = large_objects(args.data_root)[:args.rows]
    side = max(images[0].shape[:2]) * 2
    classifier, detector, segmenter = map(
        Predictor, (args.classifier, args.detector, args.segmenter))
    # A third as large, which is what it was trained on.
    small = [cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
             for image in images]
    rows = []
    for image, score, objects, labels in zip(
            images, classifier(small), detector(images), segmenter(images)):
        rgb = image[..., ::-1]
        good = objects.instances[objects.instances.scores >= 0.5]
        rows.append(beside(
            draw_scores(rgb, score.scores, classifier.classes, 1, side),
            draw_instances(rgb, good, detector.classes, legend=False,
                           min_side=side),
            draw_pixels(rgb, labels.pixels, segmenter.classes,
                        min_side=side)))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet = np.concatenate(rows)[..., ::-1]
    if not cv2.imwrite(str(args.out), sheet, [cv2.IMWRITE_JPEG_QUALITY, 80]):
        raise SystemExit(f'error: {args.out} could not be written.')
    print(f'Wrote {args.out}: {len(rows)} images.')


if __name__ == '__main__':
    main()
