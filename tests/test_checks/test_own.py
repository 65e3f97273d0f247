# Copyright (c) mmfishnet authors. All rights reserved.
"""Classes of one's own, which do what nobody knows: never an error.

Each has the name of the class that the same would be an error of.
"""
import mmdet.datasets.transforms as upstream
import numpy as np
import pytest
import torch
from mmdet import evaluation, models
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OneCycleLR as Cycle
from mmpretrain import datasets
from mmpretrain import evaluation as scores
from torch import nn

from mmfishnet.checks import check_config, report
from mmfishnet.checks.built import build_parts
from mmfishnet.checks.evaluation import check_best
from mmfishnet.checks.model import build_shapes, check_channels, check_heads
from mmfishnet.checks.schedule import Length, check_lines, reduce

from .conftest import RETINA, WIDE, expect


def no_error(found):
    found = list(found)
    assert not [p for p in found if p.level == 'error'], report(found)
    assert 'did not come to its end' not in report(found)
    return found


class LoadImageFromFile(upstream.LoadAnnotations):
    """Pictures in a form of one's own."""

    def transform(self, results):
        results['img'] = np.zeros((48, 64, 3), np.uint8)
        return results


def test_loading(coco):
    (coco.root / 'train/2.jpg').write_text('no picture')
    coco.write()
    pipeline = coco.cfg['train_dataloader']['dataset']['pipeline']
    expect(check_config(coco.cfg), 'error', ['2.jpg', 'no pictures'])
    pipeline[0]['type'] = LoadImageFromFile
    expect(no_error(check_config(coco.cfg)), 'note',
           ['a transform that is not known here'])


class Halve:

    def __call__(self, results):
        results['gt_seg_map'] = results['gt_seg_map'] // 7
        return results


def test_maps(maps):
    _, draw, cfg = maps
    for change in (lambda x: x, lambda x: x[::2, ::2], lambda x: np.stack(
            [x] * 3, -1)):
        draw(7, change)
        for part in ('train', 'val'):
            cfg[f'{part}_dataloader'].dataset.pipeline[2:2] = [
                dict(type=Halve)]
        expect(no_error(check_config(cfg)), 'warning', ['label maps'])
    draw(255)
    expect(no_error(check_config(cfg)), 'warning', ['nothing to tell apart'])


class CustomDataset(datasets.CustomDataset):
    METAINFO = dict(classes=('cat', 'dog'))

    def load_data_list(self):
        return [dict(x, gt_label=5) for x in super().load_data_list()]


class Accuracy(scores.Accuracy):
    pass


def test_labels_and_metrics(folders):
    _, cfg = folders
    cfg.train_dataloader.dataset.type = CustomDataset
    cfg.val_evaluator.update(type=Accuracy, topk=(1, 5))
    expect(no_error(check_config(cfg)), 'warning', ['labels 5', '2 classes'])


def test_evaluator(coco):
    class Own(evaluation.CocoMetric):
        def compute_metrics(self, results):
            return {}

    coco.cfg['val_evaluator'].update(type=Own, ann_file=str(
        coco.root / 'train.json'))
    coco.write()
    no_error(check_config(coco.cfg))


class Reports(Hook):
    pass


class IoUMetric(evaluation.CocoMetric):
    pass


def test_best(coco):
    coco.write()
    part, = build_parts(coco.cfg, ('val', ), 'mmdet')
    best = CheckpointHook(save_best='own', rule='less')
    assert list(check_best(part, [best]))
    assert not list(check_best(part, [best, Reports()]))
    part.metrics = [(IoUMetric(ann_file=part.data[0].ann_file), {})]
    assert not list(check_best(part, [best]))


class Mosaic(upstream.Mosaic):
    pass


def test_transforms(coco):
    loader = coco.cfg['train_dataloader']
    pack = loader['dataset']['pipeline'].pop()
    loader['dataset'] = dict(
        type='MultiImageMixDataset', dataset=loader['dataset'], pipeline=[
            dict(type=Mosaic, img_scale=(32, 32)), pack])
    coco.write()
    no_error(check_config(coco.cfg))


class RetinaHead(models.RetinaHead):
    pass


class RetinaNet(models.RetinaNet):

    def loss(self, *args, **kwargs):
        raise NotImplementedError


class Same(models.RetinaNet):
    pass


@pytest.mark.parametrize('name, kind', [
    ('bbox_head', RetinaHead), ('model', RetinaNet)])
def test_heads(coco, name, kind):
    coco.write()
    data = build_parts(coco.cfg, ('train', ), 'mmdet')[0].data[0]
    cfg = dict(RETINA, neck=WIDE, bbox_head=dict(RETINA['bbox_head'],
                                                 num_classes=2))
    for cls, level in ((Same, 'error'), (kind, 'warning')):
        if name == 'model':
            cfg['type'] = cls
        elif level == 'warning':
            cfg['bbox_head']['type'] = cls
        expect(check_heads(build_shapes(cfg, 'mmdet'), data, True), level,
               ['num_classes', 'is 2'])


def test_channels():
    for cls, level in ((Same, 'error'), (RetinaNet, 'warning')):
        cfg = dict(RETINA, type=cls, neck=WIDE)
        expect(check_channels(cfg, build_shapes(cfg, 'mmdet')), level,
               ['model.neck.in_channels', '[64, 128, 256, 512]'])


class OneCycleLR(Cycle):
    pass


def test_schedule():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1,
                                momentum=.9)
    length = Length(12, 120, 10)
    for cls, count in ((Cycle, 1), (OneCycleLR, 0)):
        line = reduce('key', cls(optimizer, eta_max=1, total_steps=6, end=12))
        assert len(list(check_lines([line], length))) == count
