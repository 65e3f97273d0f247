# Copyright (c) mmfishnet authors. All rights reserved.
"""The configs that own_data.py writes: text with the reasons in it."""
from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence

HEAD = """\
# {about}, measured by
# tools/dataset_tools/own_data.py. Every number may be changed.
_base_ = __import__('mmfishnet').config_path(
    'small/{base}.py')

data_root = {data_root!r}
classes = {classes!r}

"""
TAIL = """
# So many that {seen} pictures are seen, within limits.
max_epochs = {epochs}
train_cfg = dict(max_epochs=max_epochs, val_interval={val_interval})
optim_wrapper = dict(optimizer=dict(lr={lr:.2g}))
param_scheduler = _base_.param_scheduler  # a warm-up, and a cosine
param_scheduler[0].update(end={warmup})
default_hooks = dict(checkpoint=dict(save_best={monitor!r}))
"""
STOP = """\
# Few pictures are soon learnt by heart: {patience} validations without gain
# end the training.
custom_hooks = [
    dict(
        type='EarlyStoppingHook',
        monitor={monitor!r},
        rule='greater',
        min_delta=0.002,
        patience={patience})
]
"""
SIZE = """\
size = ({side}, {side})  # the longer side of the larger pictures, 512 at most
"""
PIPELINES = """
train_pipeline = _base_.train_pipeline
train_pipeline[{resize}].update(scale=size){flips}
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=size)
"""
NO_FLIPS = """
# No flips: in a mirror, what is left is right.
train_pipeline.pop({flip})"""
LOADERS = """\
train_dataloader = dict(
    dataset=dict(
        ann_file={train_file!r},
        data_prefix={train_prefix!r},{kept}
        pipeline=train_pipeline,
        **common))
val_dataloader = dict(
    dataset=dict(
        ann_file={val_file!r},
        data_prefix={val_prefix!r},
        pipeline=test_pipeline,
        **common))
{test}"""
TEST_AS_VAL = 'test_dataloader = val_dataloader\n'
TEST = """\
test_dataloader = dict(
    dataset=dict(
        ann_file={test_file!r},
        data_prefix={test_prefix!r},
        pipeline=test_pipeline,
        **common))
"""
COMMON = """\
common = dict(data_root=data_root, metainfo=dict(classes=classes))
"""
KEPT = """
        # Pictures without objects show what is none.
        filter_cfg=dict(filter_empty_gt=False, min_size=1),"""
DETECTOR = SIZE + """\
model = dict(
    # The second of five anchor sizes is that of half of the objects.
    rpn_head=dict(anchor_generator=dict(scales=[{scale:g}])),
    roi_head=dict({heads}),
    # A crowded picture has {crowd} objects.
    train_cfg=dict(
        rpn=dict(sampler=dict(num={rpn_samples})),
        rcnn=dict(sampler=dict(num={rcnn_samples}, pos_fraction=0.5))),
    test_cfg=dict(rcnn=dict(max_per_img={found})))
""" + PIPELINES + COMMON + LOADERS + """\
val_evaluator = dict(ann_file={val_path!r})
test_evaluator = dict(ann_file={test_path!r})
"""
BOX_HEAD = 'bbox_head=dict(num_classes=len(classes))'
MASK_HEAD = f"""
        {BOX_HEAD},
        mask_head=dict(num_classes=len(classes))"""
SEGMENTER = """\
palette = {palette!r}

""" + SIZE + """\
model = dict(
    data_preprocessor=dict(size=size),
    decode_head=dict(num_classes=len(classes)))
""" + PIPELINES + """\
common = dict(
    data_root=data_root,
    metainfo=dict(classes=classes, palette=palette),
    img_suffix='')  # names have theirs
""" + LOADERS
CLASSIFIER = """\
size = {side}  # the longer side of the larger pictures, 224 at most
model = dict(head=dict(num_classes=len(classes)))
data_preprocessor = dict(num_classes=len(classes))
""" + PIPELINES + """\
test_pipeline[2].update(crop_size=size)
""" + COMMON + LOADERS


def write_text(body: str, **values) -> str:
    """A config's text; ``body`` is DETECTOR, SEGMENTER or CLASSIFIER."""
    test = TEST if 'test_file' in values else TEST_AS_VAL
    text = HEAD + body.replace('{test}', test) + TAIL + (
        STOP if values['patience'] else '')
    resize = 1 if body is CLASSIFIER else 2
    flips = ''
    if left_and_right(values['classes']):
        flips = NO_FLIPS.format(flip=resize + 1)
    return text.format(
        **{'kept': '', **values}, resize=resize, flips=flips)


def left_and_right(classes: Sequence[str]) -> list[str]:
    """Classes that are another's when left and right change places."""
    swap = dict(left='right', right='left')
    names = [name.lower() for name in classes]
    return [name for name, lower in zip(classes, names)
            if (other := re.sub('left|right', lambda m: swap[m[0]], lower))
            != lower and other in names]


def palette(count: int) -> list[list[int]]:
    """Colours that differ: black, then hues at golden angles."""
    return [[0, 0, 0]] + [
        [round(255 * v) for v in colorsys.hsv_to_rgb(i * 0.618 % 1, 0.7, 1.)]
        for i in range(count - 1)
    ]
