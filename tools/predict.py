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
        'and areas. Detectors of MMDetection and classifiers of MMPretrain.')
    parser.add_argument(
        'inputs',
        nargs='+',
        metavar='INPUT',
        help='picture, folder (at any depth), video or URL')
    parser.add_argument(
        '--checkpoint', required=True, metavar='FILE', help='trained model')
    parser.add_argument(
        '--config',
        metavar='FILE',
        help='config, if the checkpoint carries none')
    parser.add_argument(
        '--out-dir', required=True, metavar='DIR', help='where results go')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='objects of a lower score are in predictions.json only '
        '(default: %(default)s)')
    parser.add_argument(
        '--batch-size',
        type=int,
        default=1,
        help='pictures that go through the model at a time')
    parser.add_argument(
        '--ann-file',
        metavar='FILE',
        help='COCO file whose ids of pictures and classes predictions.json '
        'uses; by default both are counted from 1')
    parser.add_argument(
        '--device', help='such as cpu or cuda:0; by default the GPU, if any')
    parser.add_argument(
        '--no-pictures', action='store_true', help='do not draw')
    return parser.parse_args()


def main():
    args = parse_args()
    with short_errors():
        # Takes seconds; --help does not need it.
        from mmfishnet.apis import predict
        from mmfishnet.checkpoints import use_safe_loading
        use_safe_loading()
        rows = predict(
            args.inputs,
            args.checkpoint,
            args.out_dir,
            config=args.config,
            device=args.device,
            batch_size=args.batch_size,
            score_thr=args.score_thr,
            ann_file=args.ann_file,
            pictures=not args.no_pictures)
    pictures = len({row['picture'] for row in rows})
    objects = sum(row.get('count', 0) for row in rows)
    found = f', objects: {objects}' if rows and 'count' in rows[0] else ''
    print(f'pictures: {pictures}{found}, in {args.out_dir}')


if __name__ == '__main__':
    main()
