# Copyright (c) mmfishnet authors. All rights reserved.
"""Pipelines that do not give what the model and the metrics read."""
from copy import deepcopy

import pytest
from mmengine.config import ConfigDict

from mmfishnet.checks import check_config, report

from .conftest import FPN, RESNET, expect

DETECTOR = dict(
    type='MaskRCNN', train_cfg=None, test_cfg=dict(rpn={}, rcnn={}),
    data_preprocessor=dict(type='DetDataPreprocessor'),
    backbone=RESNET, neck=dict(
        FPN, in_channels=[64, 128, 256, 512], num_outs=5),
    rpn_head=dict(type='RPNHead', in_channels=8, feat_channels=8,
                  anchor_generator=dict(
                      type='AnchorGenerator', scales=[8], ratios=[1.],
                      strides=[4, 8, 16, 32, 64])),
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor', out_channels=8,
            featmap_strides=[4, 8], roi_layer=dict(
                type='RoIAlign', output_size=7)),
        bbox_head=dict(type='Shared2FCBBoxHead', in_channels=8,
                       fc_out_channels=8, num_classes=3),
        mask_roi_extractor=None,
        mask_head=dict(type='FCNMaskHead', in_channels=8, num_convs=1,
                       conv_out_channels=8, num_classes=3)))
RESIZE = dict(type='Resize', scale=(64, 48))


def pipeline(cfg, part):
    return cfg[f'{part}_dataloader']['dataset']['pipeline']


COCO = {
    'no masks': (lambda c: pipeline(c, 'train')[2].update(with_mask=False),
                 'train_dataloader', 'FCNMaskHead reads masks'),
    'no boxes': (lambda c: pipeline(c, 'train').pop(2),
                 'train_dataloader', 'RPNHead reads bboxes'),
    'not packed': (lambda c: pipeline(c, 'train').pop(),
                   'train_dataloader', 'no inputs', 'PackDetInputs'),
    'not loaded': (lambda c: pipeline(c, 'val').pop(0),
                   'val_dataloader.dataset.pipeline.0', 'Resize fails'),
    'no resize': (lambda c: pipeline(c, 'val').pop(1),
                  'val_dataloader', 'Shared2FCBBoxHead reads scale_factor'),
    'no id': (lambda c: pipeline(c, 'val')[-1].update(
        meta_keys=('ori_shape', 'img_shape', 'scale_factor')),
        'val_dataloader', 'CocoMetric reads img_id', 'meta_keys'),
    'one channel': (lambda c: c['model'].update(
        backbone=dict(RESNET, in_channels=1)),
        'train_dataloader', 'have 3 channels, and ResNet reads 1'),
    'few levels': (lambda c: c['model']['neck'].update(num_outs=4),
                   'model.rpn_head', '5 strides, and FPN gives 4 features'),
    'no truth': (lambda c: c['val_evaluator'].pop('ann_file'),
                 'val_dataloader', 'CocoMetric reads instances', 'ann_file'),
}


@pytest.mark.parametrize('name', [None, *COCO])
def test_detection(coco, name):
    coco.write()
    coco.cfg['model'] = ConfigDict(deepcopy(DETECTOR))
    for part in ('train', 'val'):
        pipeline(coco.cfg, part).insert(1, dict(RESIZE))
    if name is None:
        found = check_config(coco.cfg)
        assert {p.level for p in found} == {'note'}, report(found)
        return
    change, *words = COCO[name]
    change(coco.cfg)
    expect(check_config(coco.cfg), 'error', words)


@pytest.mark.parametrize('part, words', [
    ('train', ['FCNHead reads gt_sem_seg']),
    ('val', ['IoUMetric reads gt_sem_seg'])])
def test_segmentation(maps, part, words):
    _, draw, cfg = maps
    draw()
    del pipeline(cfg, part)[1]
    expect(check_config(cfg), 'error', [f'{part}_dataloader', *words])


@pytest.mark.parametrize('part, words', [
    ('train', ['LinearClsHead reads gt_label']),
    ('val', ['Accuracy reads gt_label'])])
def test_classification(folders, part, words):
    _, cfg = folders
    cfg[f'{part}_dataloader'].dataset.with_label = False
    expect(check_config(cfg), 'error', [f'{part}_dataloader', *words])


def test_backbone_without_a_convolution(folders):
    """Its channels are not known, and the rest is asked all the same."""
    _, cfg = folders
    cfg.model.backbone = dict(type='T2T_ViT', img_size=32)
    cfg.model.neck = None
    cfg.train_dataloader.dataset.with_label = False
    expect(check_config(cfg), 'error', ['LinearClsHead reads gt_label'])
