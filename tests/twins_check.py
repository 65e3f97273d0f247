# Copyright (c) mmfishnet authors. All rights reserved.
"""Run the check over the stock configs of OpenMMLab's packages.

    python tests/twins_check.py [--every 5] [--packages mmdet mmpretrain mmseg]

Each config gets small data in the layout that its data sets read. What
upstream builds has no error of ours: each that is found is printed, and the
exit status is 1. Configs that upstream cannot build here (a package is
missing, a file is gone) and data sets without stand-in are counted.
"""
import argparse
import gc
import os
import sys
import tempfile
import warnings
from collections import Counter

from mmengine.config import Config
from mmengine.logging import MMLogger

import mmfishnet  # noqa: F401 (registers FishNet)
import stand_in_data
from mmfishnet.checks import check_config

# One of each layout and each kind of model, for the suite.
TELLING = (
    'mmdet/guided_anchoring/ga-rpn_r50_fpn_1x_coco.py',
    'mmdet/yolox/yolox_s_8xb8-300e_coco.py',
    'mmdet/yolo/yolov3_d53_8xb8-320-273e_coco.py',
    'mmdet/rtmdet/rtmdet-ins_s_8xb32-300e_coco.py',
    'mmdet/cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py',
    'mmdet/mm_grounding_dino/coco/grounding_dino_swin-t_finetune_16xb4_1x_'
    'coco_48_17.py',
    'mmdet/soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_'
    'semi-0.1-coco.py',
    'mmdet/mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
    'mmdet/pascal_voc/retinanet_r50_fpn_1x_voc0712.py',
    'mmdet/openimages/retinanet_r50_fpn_32xb2-1x_openimages.py',
    'mmdet/crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py',
    'mmdet/wider_face/ssd300_8xb32-24e_widerface.py',
    'mmpretrain/resnet/resnet50_8xb32_in1k.py',
    'mmpretrain/vgg/vgg16_8xb16_voc.py',
    'mmpretrain/resnet/resnet50_8xb8_cub.py',
    'mmpretrain/swav/swav_resnet50_8xb32-mcrop-coslr-200e_in1k-224px-96px.py',
    'mmseg/fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'mmseg/segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    'mmseg/unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py')


def check_stock(name: str) -> tuple[str, list]:
    """Check one config.

    Args:
        name (str): Package, and path of the config there.

    Returns:
        tuple[str, list]: 'checked', or why not; and the errors.
    """
    try:
        cfg = Config.fromfile(stand_in_data.stock(name))
    except Exception as fault:
        return f'upstream: {type(fault).__name__} of the config', []
    for part in filter(cfg.get, stand_in_data.PARTS):
        # The stand-in has few pictures.
        cfg[part].batch_size = min(cfg[part].get('batch_size') or 1, 2)
    with tempfile.TemporaryDirectory() as folder:
        try:
            unknown = stand_in_data.make(cfg, folder)
        except Exception as fault:
            return f'upstream: {type(fault).__name__} of the data', []
        if unknown:
            return f'no stand-in for {unknown[0]}', []
        with stand_in_data.chdir(folder):
            problems = check_config(cfg)
    theirs = [p for p in problems if p.level == 'error' and (
        'cannot be built' in p.text or 'takes no such argument' in p.text)]
    state = 'checked'
    if theirs:  # such as a metric whose package is missing
        state += f', but for {theirs[0].text.rpartition("(")[2][:40]!r}'
    return state, [
        p for p in problems if p not in theirs and p.level == 'error'
        or 'did not come to its end' in p.text]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--packages', nargs='+',
                        default=['mmdet', 'mmpretrain', 'mmseg'])
    parser.add_argument('--every', type=int, default=1)
    parser.add_argument('--telling', action='store_true',
                        help='those of the suite alone')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    MMLogger.get_instance('twins', log_level='ERROR')
    counts, wrong = Counter(), 0
    gc.freeze()  # MMEngine collects for each data set that it builds
    for package in args.packages:
        top = stand_in_data.stock(package)
        names = [f'{package}/{p.relative_to(top)}'
                 for p in sorted(top.rglob('*.py'))
                 if '_base_' not in p.parts][::args.every]
        for name in names:
            if args.telling and name not in TELLING:
                continue
            state, errors = check_stock(name)
            counts[package, state] += 1
            wrong += bool(errors)
            for problem in errors:
                print(f'{name}: {problem}', flush=True)
    for (package, state), count in sorted(counts.items()):
        print(f'{package}: {count} {state}')
    print(f"{wrong} with an error or a note that is not upstream's")
    sys.exit(wrong > 0)


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    main()
