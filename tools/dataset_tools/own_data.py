# Copyright (c) mmfishnet authors. All rights reserved.
"""Write a config for your own pictures with outlines, in COCO's format.

What the data can say stands in it with the reason: classes, size of the
pictures, sizes of the anchors, samples, epochs, learning rate.
"""
import argparse
import os
from pathlib import Path

from mmfishnet.datasets.measure import measure
from mmfishnet.engine.errors import short_errors

CONFIG = """\
# {images} pictures with objects of {classes_count}, measured by
# tools/dataset_tools/own_data.py. Every number may be changed.
_base_ = __import__('mmfishnet').config_path(
    'small/mask_rcnn_fishnet_small.py')

data_root = {data_root!r}
classes = {classes!r}

size = ({side}, {side})  # the longer side of the larger pictures, 512 at most
# So many that 3600 pictures are seen, within limits.
max_epochs = {epochs}

model = dict(
    # The second of five anchor sizes is that of half of the objects.
    rpn_head=dict(anchor_generator=dict(scales=[{scale:g}])),
    roi_head=dict(
        bbox_head=dict(num_classes=len(classes)),
        mask_head=dict(num_classes=len(classes))),
    # A crowded picture has {objects} objects.
    train_cfg=dict(
        rpn=dict(sampler=dict(num={rpn_samples})),
        rcnn=dict(sampler=dict(num={rcnn_samples}, pos_fraction=0.5))),
    test_cfg=dict(rcnn=dict(max_per_img={found})))

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=size)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=size)
common = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(
    dataset=dict(
        ann_file={train_file!r},
        data_prefix=dict(img={train_images!r}),
        pipeline=train_pipeline,
        **common))
val_dataloader = dict(
    dataset=dict(
        ann_file={val_file!r},
        data_prefix=dict(img={val_images!r}),
        pipeline=test_pipeline,
        **common))
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file=data_root + {val_file!r})
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=max_epochs, val_interval={val_interval})
optim_wrapper = dict(optimizer=dict(lr={lr:.2g}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end={warmup}),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        eta_min_ratio=0.01,
        by_epoch=True,
        convert_to_iter_based=True)
]
"""


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data_root', help='folder of the data set')
    parser.add_argument('config', help='where to write the config (.py)')
    parser.add_argument(
        '--train',
        default='annotations/instances_train2017.json',
        metavar='FILE',
        help='annotations to train on, in the folder (default: %(default)s)')
    parser.add_argument(
        '--val',
        default='annotations/instances_val2017.json',
        metavar='FILE',
        help='annotations to validate on (default: %(default)s)')
    parser.add_argument(
        '--train-images',
        default='train2017/',
        metavar='DIR',
        help='their pictures (default: %(default)s)')
    parser.add_argument(
        '--val-images',
        default='val2017/',
        metavar='DIR',
        help='likewise (default: %(default)s)')
    parser.add_argument(
        '--overwrite', action='store_true', help='replace the config')
    args = parser.parse_args()
    if not args.config.endswith('.py'):
        parser.error(f'{args.config} should end in .py')
    return args


def main():
    args = parse_args()
    root = Path(args.data_root)
    with short_errors():
        if os.path.exists(args.config) and not args.overwrite:
            raise FileExistsError(
                f'{args.config} is there already, perhaps with changes of '
                'yours: name another file, or --overwrite.')
        measured = measure(root / args.train)
        theirs = measure(root / args.val).classes
        missing = [name for name in measured.classes if name not in theirs]
        if missing:
            raise ValueError(
                f'{args.val} has no category named {", ".join(missing)}; '
                f'its categories are {", ".join(theirs)}.')
        for folder in (args.train_images, args.val_images):
            if not (root / folder).is_dir():
                raise FileNotFoundError(
                    f'there is no folder {root / folder}; name the one with '
                    'the pictures (--train-images, --val-images).')
    count = len(measured.classes)
    classes_count = 'one class' if count == 1 else f'{count} classes'
    # Half of RPN's samples may be objects, so twice as many as there are; the
    # heads see half of the objects in a step, and all before long.
    samples = max(32, min(128, measured.objects))
    text = CONFIG.format(
        images=measured.num_images,
        classes_count=classes_count,
        data_root=os.path.join(args.data_root, ''),
        train_file=args.train,
        val_file=args.val,
        train_images=args.train_images,
        val_images=args.val_images,
        classes=measured.classes,
        side=measured.side,
        epochs=measured.epochs,
        scale=measured.anchor_scale,
        objects=measured.objects,
        rpn_samples=2 * samples,
        rcnn_samples=samples,
        found=max(100, 2 * measured.objects),
        val_interval=max(1, measured.epochs // 3),
        lr=measured.lr,
        warmup=measured.warmup)
    Path(args.config).parent.mkdir(parents=True, exist_ok=True)
    Path(args.config).write_text(text)
    print(f'{args.config}: {measured.num_images} pictures, {classes_count}, '
          f'{measured.side} pixels, {measured.epochs} epochs')


if __name__ == '__main__':
    main()
