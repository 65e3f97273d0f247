# Copyright (c) mmfishnet authors. All rights reserved.
"""Classes of one's own, which do what nobody knows: never an error.

Each has the name of the class that the same would be an error of.
"""
import mmdet.datasets.transforms as upstream
import numpy as np
import pytest
import torch
from mmdet import evaluation, models
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseModel
from mmengine.optim import OneCycleLR as Cycle
from mmpretrain import datasets
from mmpretrain import evaluation as scores
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from mmfishnet.checks import check_config, checked, report
from mmfishnet.checks.built import build_parts
from mmfishnet.checks.evaluation import check_best
from mmfishnet.checks.model import build_shapes, check_channels, check_heads
from mmfishnet.checks.schedule import Length, check_lines, reduce
from mmfishnet.engine.runner import ToolRunner

from .conftest import FPN, RETINA, WIDE, data_of, expect


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


class CocoMetric(evaluation.CocoMetric):

    def compute_metrics(self, results):
        return {}


class Mosaic(upstream.Mosaic):
    pass


def test_detection(coco):
    (coco.root / 'train/2.jpg').write_text('no picture')
    coco.write()
    loader = coco.cfg['train_dataloader']
    pipeline = loader['dataset']['pipeline']
    coco.cfg['val_evaluator'].update(
        type=CocoMetric, ann_file=str(coco.root / 'train.json'))
    found = check_config(coco.cfg)
    expect(found, 'error', ['2.jpg', 'no pictures'])
    assert sum(p.level == 'error' for p in found) == 1  # not the metric's file
    pipeline[0]['type'] = LoadImageFromFile
    loader['dataset'] = dict(
        type='MultiImageMixDataset', dataset=loader['dataset'], pipeline=[
            dict(type=Mosaic, img_scale=(32, 32)), pipeline.pop()])
    expect(no_error(check_config(coco.cfg)), 'note',
           ['a transform that is not known here'])


class Halve:

    def __call__(self, results):
        results['gt_seg_map'] = results['gt_seg_map'] // 7
        return results


def test_maps(maps):
    _, draw, cfg = maps
    for part in ('train', 'val'):
        cfg[f'{part}_dataloader'].dataset.pipeline[2:2] = [dict(type=Halve)]
    for change, words in ((lambda x: x[::2, ::2], 'goes up to 7'),
                          (lambda x: np.stack([x] * 3, -1), '(24, 32, 3)')):
        draw(7, change)
        expect(no_error(check_config(cfg)), 'warning', [words])
    draw(255)
    expect(no_error(check_config(cfg)), 'warning', ['nothing to tell apart'])


@pytest.mark.parametrize('sigmoid', [True, False])
def test_one_output_tells_two_apart(maps, sigmoid):
    """num_classes=1 with a sigmoid, which MMSegmentation trains on 0 and
    1."""
    _, draw, cfg = maps
    draw()
    cfg.model.decode_head.update(num_classes=1, loss_decode=dict(
        type='CrossEntropyLoss', use_sigmoid=sigmoid))
    found = check_config(cfg)
    assert any(p.level == 'error' for p in found) is (not sigmoid), report(
        found)


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


class RetinaHead(models.RetinaHead):
    pass


class RetinaNet(models.RetinaNet):

    def loss(self, *args, **kwargs):
        raise NotImplementedError


class Same(models.RetinaNet):
    pass


def test_heads_and_channels(coco):
    data = data_of(coco, 'train')
    head = dict(RETINA['bbox_head'], num_classes=2)
    for cls, kind, level in ((Same, 'RetinaHead', 'error'),
                             (Same, RetinaHead, 'warning'),
                             (RetinaNet, 'RetinaHead', 'warning')):
        cfg = dict(RETINA, type=cls, neck=WIDE, bbox_head=dict(
            head, type=kind))
        model = build_shapes(cfg, 'mmdet')
        expect(check_heads(model, data, True), level, ['num_classes', 'is 2'])
        expect(check_channels(cfg, model), 'error' if cls is Same else level,
               ['model.neck.in_channels', '[64, 128, 256, 512]'])
        cfg['neck'] = dict(FPN, in_channels=[64, 128, 256, 512])
        found = list(check_channels(cfg, build_shapes(cfg, 'mmdet')))
        if kind is RetinaHead:
            assert not found
        else:
            expect(found, level, ['5 strides, and FPN gives 4 features'])


class OneCycleLR(Cycle):
    pass


def test_schedule():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1,
                                momentum=.9)
    length = Length(12, 120, 10)
    for cls, count in ((Cycle, 1), (OneCycleLR, 0)):
        line = reduce('key', cls(optimizer, eta_max=1, total_steps=6, end=12))
        assert len(list(check_lines([line], length))) == count


# Data sets of a rarer kind ---------------------------------------------------

class OneWeight(BaseModel):

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.weight.sum())


class Stream(IterableDataset):
    """Its end is not known."""

    def __iter__(self):
        for _ in range(40):
            yield dict(inputs=torch.zeros(4))


class Around(Dataset):
    """`dataset` and `datasets` are other things than MMEngine's wrappers
    mean by them."""

    def __init__(self, datasets=None):
        self.datasets = datasets

    dataset = property(lambda self: self)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return dict(inputs=torch.zeros(4))


class Longer(BaseDataset):
    """It has more samples than records."""

    def load_data_list(self):
        return [dict(i=i) for i in range(3)]

    def __len__(self):
        return 12

    __getitem__ = Around.__getitem__


def config(dataset, **loader):
    return Config(dict(
        default_scope='mmengine', model=dict(type=OneWeight),
        train_dataloader=dict(batch_size=2, num_workers=0, dataset=dataset,
                              sampler=dict(type='InfiniteSampler')) | loader,
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1))))


@pytest.mark.parametrize('dataset', [
    dict(type=Around), dict(type=Around, datasets=['']), dict(type=Longer)])
def test_data_sets(dataset):
    found = check_config(config(dataset))
    assert not found, report(found)


def test_stream(tmp_path):
    """Steps are counted, and a checkpoint is saved; MMEngine's logger alone
    asks for the length of an epoch."""
    cfg = config(dict(type=Stream), sampler=None)
    cfg.merge_from_dict(dict(
        work_dir=str(tmp_path), log_processor=dict(by_epoch=False),
        log_level='ERROR', experiment_name=tmp_path.name, default_hooks=dict(
            logger=None, checkpoint=dict(type='CheckpointHook', by_epoch=False,
                            interval=3))))
    found = check_config(cfg)
    assert not found, report(found)
    runner = ToolRunner.from_cfg(cfg)
    with checked(runner, ('train', )):
        runner.train()
    saved = torch.load(tmp_path / 'iter_3.pth', weights_only=False)
    assert saved['mmfishnet']['batches'] is None
