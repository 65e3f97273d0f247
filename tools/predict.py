# Copyright (c) mmfishnet authors. All rights reserved.
"""Predict on pictures, folders, videos and URLs with a trained model."""
import argparse

import mmfishnet  # noqa: F401 (registers FishNet)
from mmfishnet.engine.errors import short_errors


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='Into the folder go the drawn pictures, predictions.json in '
        "COCO's result form with images.json beside it, and tables of counts "
        'and areas. For detectors of MMDetection, classifiers of MMPretrain '
        'and segmenters of MMSegmentation.')
    add = parser.add_argument
    add('inputs', nargs='+', metavar='INPUT',
        help='picture, folder (at any depth), video or URL')
    add('--checkpoint', required=True, metavar='FILE', help='trained model')
    add('--config', metavar='FILE',
        help='config, if the checkpoint carries none')
    add('--out-dir', required=True, metavar='DIR', help='where results go')
    add('--score-thr', type=float, default=0.3,
        help='objects of a lower score are in predictions.json only '
        '(default: %(default)s)')
    add('--batch-size', type=int, default=1,
        help='pictures, or tiles, that go through the model at a time')
    add('--tile', type=int, metavar='PIXELS',
        help="cut a detector's larger pictures into overlapping tiles of this "
        'side, such as those it was trained on, and join what is found')
    add('--ann-file', metavar='FILE',
        help='COCO file whose ids of pictures and classes predictions.json '
        'uses; by default both are counted from 1')
    add('--device', help='such as cpu or cuda:0; by default the GPU, if any')
    add('--no-pictures', action='store_true', help='do not draw')
    return parser.parse_args()


def main():
    args = parse_args()
    with short_errors():
        # Takes seconds; --help does not need it.
        from mmfishnet.apis import Predictor, predict
        from mmfishnet.checkpoints import use_safe_loading
        from mmfishnet.engine.noise import leave_out_noise
        leave_out_noise()
        use_safe_loading()
        rows = predict(
            args.inputs, Predictor(args.checkpoint, args.config, args.device),
            args.out_dir, args.score_thr, args.ann_file, not args.no_pictures,
            batch_size=args.batch_size, tile=args.tile)
    pictures = len({row['picture'] for row in rows})
    objects = sum(row.get('count', 0) for row in rows)
    found = (f', objects: {objects} with a score of {args.score_thr:g} or more'
             if rows and 'count' in rows[0] else '')
    print(f'pictures: {pictures}{found}, in {args.out_dir}')


if __name__ == '__main__':
    main()
