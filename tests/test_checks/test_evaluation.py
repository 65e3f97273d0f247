# Copyright (c) mmfishnet authors. All rights reserved.
"""What metrics report, and files that lie elsewhere."""
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmengine.fileio import BaseStorageBackend, register_backend
from mmpretrain.evaluation import Accuracy
from mmseg.evaluation import IoUMetric

from mmfishnet.checks import check_config, report
from mmfishnet.checks.evaluation import REPORTED

from .conftest import expect


def reported(metric, results):
    """Names of the numbers that upstream's own code makes."""
    names = metric.compute_metrics(results)
    return sorted(name for name in names if 'copypaste' not in name)


def test_names_of_accuracy():
    metric = Accuracy(topk=(1, 2))
    results = [dict(pred_score=torch.tensor([.2, .7, .1]),
                    gt_label=torch.tensor([1]))]
    assert reported(metric, results) == sorted(REPORTED['Accuracy'](metric))


@pytest.mark.parametrize('kinds', [['mIoU'], ['mDice', 'mFscore']])
def test_names_of_iou(kinds):
    metric = IoUMetric(iou_metrics=kinds)
    metric.dataset_meta = dict(classes=('a', 'b'))
    areas = torch.tensor([3., 4])
    found = reported(metric, [(areas, areas, areas, areas)])
    assert found == sorted(REPORTED['IoUMetric'](metric))


def perfect(coco, **kwargs):
    """CocoMetric, and predictions that are the annotations."""
    coco.write()
    dataset = dict(coco.cfg['val_dataloader']['dataset'], pipeline=[])
    dataset.pop('type')
    dataset = CocoDataset(**dataset)
    metric = CocoMetric(ann_file=dataset.ann_file, **kwargs)
    metric.dataset_meta = dataset.metainfo
    results = []
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        results.append((None, dict(
            img_id=info['img_id'],
            bboxes=np.array([x['bbox'] for x in info['instances']]),
            scores=np.ones(len(info['instances'])),
            labels=np.array([x['bbox_label'] for x in info['instances']]))))
    return metric, results


def test_names_of_coco(coco):
    metric, results = perfect(
        coco, metric=['bbox', 'proposal', 'proposal_fast'])
    assert reported(metric, results) == sorted(
        set(REPORTED['CocoMetric'](metric)))


def test_id_0_costs_ap(coco):
    """What the warning says: perfect boxes do not reach AP 1."""
    aps = []
    for name in (1, 0):
        coco.val['annotations'][0]['id'] = name
        metric, results = perfect(coco)
        aps.append(metric.compute_metrics(results)['bbox_mAP'])
    assert aps[0] == 1 > aps[1]


@register_backend('elsewhere', prefixes='elsewhere', force=True)
class Elsewhere(BaseStorageBackend):
    """A disk of another machine."""

    def get(self, path):
        with open(path.removeprefix('elsewhere:/'), 'rb') as file:
            return file.read()

    def get_text(self, path, encoding='utf-8'):
        return self.get(path).decode(encoding)

    def join_path(self, *paths):
        return '/'.join(map(str, paths))

    @contextmanager
    def get_local_path(self, path):
        yield path.removeprefix('elsewhere:/')


def test_other_storage(coco):
    """What upstream reads from there is not looked for on this disk."""
    for part in ('train', 'val'):
        dataset = coco.cfg[f'{part}_dataloader']['dataset']
        dataset.update(data_root=f'elsewhere:/{coco.root}')
    coco.write()
    found = check_config(coco.cfg)
    assert not [p for p in found if p.level == 'error'], report(found)
    expect(found, 'note', ['storage backend'])
