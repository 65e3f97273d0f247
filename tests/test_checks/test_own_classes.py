# Copyright (c) mmfishnet authors. All rights reserved.
"""What upstream trains with classes of somebody's own, or of a rarer kind."""
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch.utils.data import Dataset, IterableDataset

from mmfishnet.checks import check_config, checked, report
from mmfishnet.engine.runner import ToolRunner


@MODELS.register_module(force=True)
class OneWeight(BaseModel):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.weight.sum())


@DATASETS.register_module(force=True)
class Stream(IterableDataset):
    """Its end is not known."""

    def __iter__(self):
        for _ in range(40):
            yield dict(inputs=torch.zeros(4))


@DATASETS.register_module(force=True)
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


@DATASETS.register_module(force=True)
class Longer(BaseDataset):
    """It has more samples than records."""

    def load_data_list(self):
        return [dict(i=i) for i in range(3)]

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return dict(inputs=torch.zeros(4))


def config(dataset, **loader):
    return Config(dict(
        default_scope='mmengine', model=dict(type='OneWeight'),
        train_dataloader=dict(batch_size=2, num_workers=0, dataset=dataset,
                              sampler=dict(type='InfiniteSampler')) | loader,
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1))))


@pytest.mark.parametrize('dataset', [
    dict(type='Around'), dict(type='Around', datasets=['']),
    dict(type='Longer')])
def test_data_sets(dataset):
    found = check_config(config(dataset))
    assert not found, report(found)


def test_stream(tmp_path):
    """Steps are counted, and a checkpoint is saved; MMEngine's logger alone
    asks for the length of an epoch."""
    cfg = config(dict(type='Stream'), sampler=None)
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
