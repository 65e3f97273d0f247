# Copyright (c) mmfishnet authors. All rights reserved.
import pytest
from mmengine.config import Config


def coco(folder, **dataset):
    """A COCO config as MMDetection's bases build it."""
    root = 'data/coco/'
    loader = dict(
        num_workers=2,
        persistent_workers=True,
        dataset=dict(
            type='CocoDataset',
            data_root=root,
            ann_file=f'annotations/{folder}.json',
            data_prefix=dict(img=f'{folder}/'),
            **dataset))
    evaluator = dict(
        type='CocoMetric',
        ann_file=f'{root}annotations/{folder}.json',
        outfile_prefix=f'{root}results/{folder}')
    return root, loader, evaluator


@pytest.fixture
def detection():
    root, loader, evaluator = coco('val2017')
    return Config(
        dict(
            default_scope='mmdet',
            data_root=root,
            train_dataloader=loader,
            val_dataloader=loader,
            test_dataloader=loader,
            val_evaluator=evaluator,
            test_evaluator=[evaluator]))
