# Copyright (c) mmfishnet authors. All rights reserved.
import pytest
from mmengine.config import Config

from mmfishnet.engine.data_root import set_data_root


def test_data_root_of_all_data_sets_and_evaluators(detection, tmp_path):
    inner = detection.train_dataloader.dataset
    detection.train_dataloader.dataset = dict(
        type='MultiImageMixDataset',
        dataset=dict(
            type='ConcatDataset',
            datasets=[
                inner,
                dict(
                    type='ClassBalancedDataset',
                    dataset={
                        **inner, 'ann_file': 'data/coco/extra.json',
                        'data_prefix': {
                            'img': 'data/coco-like/img',
                            'seg': './data/coco'
                        }
                    })
            ]))
    new = str(tmp_path)
    set_data_root(detection, new)

    mixed = detection.train_dataloader.dataset.dataset.datasets
    assert mixed[0].data_root == new + '/'
    assert mixed[0].ann_file == 'annotations/val2017.json'
    balanced = mixed[1].dataset
    assert balanced.data_root == new + '/'
    assert balanced.ann_file == f'{new}/extra.json'
    assert balanced.data_prefix == dict(img='data/coco-like/img', seg=new)
    for loader in ('val_dataloader', 'test_dataloader'):
        assert detection[loader].dataset.data_root == new + '/'
    for evaluator in (detection.val_evaluator, detection.test_evaluator[0]):
        assert evaluator.ann_file == f'{new}/annotations/val2017.json'
        assert evaluator.outfile_prefix == 'data/coco/results/val2017'
    assert detection.data_root == new + '/'


def test_several_data_roots_keep_their_layout(detection, tmp_path):
    detection.train_dataloader.dataset.data_root = 'data/lvis_v1/'
    set_data_root(detection, str(tmp_path))
    assert detection.train_dataloader.dataset.data_root == \
        f'{tmp_path}/lvis_v1/'
    assert detection.val_dataloader.dataset.data_root == f'{tmp_path}/coco/'
    assert detection.val_evaluator.ann_file == \
        f'{tmp_path}/coco/annotations/val2017.json'


@pytest.mark.parametrize('root', ['lvis', '/lvis'])
def test_data_roots_with_nothing_in_common(detection, tmp_path, root):
    detection.train_dataloader.dataset.data_root = root
    with pytest.raises(ValueError, match=f'(?s){root}.*--cfg-options'):
        set_data_root(detection, str(tmp_path))


def test_data_root_must_exist(detection, tmp_path):
    with pytest.raises(FileNotFoundError, match='--data-root.*nowhere'):
        set_data_root(detection, str(tmp_path / 'nowhere'))


def test_config_without_data_root(tmp_path):
    with pytest.raises(ValueError, match='has a data_root'):
        set_data_root(Config(dict()), str(tmp_path))
