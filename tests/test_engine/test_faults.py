# Copyright (c) mmfishnet authors. All rights reserved.
"""What cannot be built of a config is said in a sentence, with its place."""
import mmdet.models  # noqa: F401
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS, TRANSFORMS

from mmfishnet.checks import checked
from mmfishnet.engine.faults import ConfigError, config_faults
from mmfishnet.engine.runner import ToolRunner


@MODELS.register_module(force=True)
class Scale(BaseModel):
    def __init__(self, factor=1.):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, inputs, mode='tensor', **kwargs):
        return dict(loss=self.factor * torch.stack(list(inputs)).sum())


@DATASETS.register_module(force=True)
class Threes(BaseDataset):
    def load_data_list(self):
        return [dict(inputs=torch.ones(3))] * 4


@TRANSFORMS.register_module(force=True)
class NoInputs:
    def __call__(self, item):
        return dict(x=1)


@HOOKS.register_module(force=True)
def broken_hook():
    raise KeyError('of my own')


@pytest.fixture
def cfg(tmp_path):
    return Config(dict(
        default_scope='mmengine', model=dict(type='Scale'),
        train_dataloader=dict(
            batch_size=2, num_workers=0, dataset=dict(type='Threes'),
            sampler=dict(type='DefaultSampler', shuffle=True)),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        param_scheduler=[dict(type='StepLR', step_size=1)],
        log_level='ERROR', work_dir=str(tmp_path),
        experiment_name=tmp_path.name))


def run(cfg):
    with config_faults(cfg):
        runner = ToolRunner.from_cfg(cfg)
    with config_faults(cfg, runner), checked(runner, ('train', ), False):
        runner.train()


@pytest.mark.parametrize('key, value, words', [
    ('model.type', 'Scal', r"model.type: Scal is no model that is known "
     r"\(did you mean 'Scale'"),
    ('model.type', 'RetinaNet', r"did you mean 'mmdet.RetinaNet'\?"),
    ('model.factr', 2, r"model: Scale takes no factr \(did you mean 'factor'"),
    ('custom_hooks', [dict(type='EMAHok')],
     r"custom_hooks.0.type: EMAHok .*'EMAHook'"),
    ('custom_hooks', [dict(interval=1)], r'no type: .*interval'),
    ('default_hooks.logger.interval', 0,
     r'default_hooks.logger: LoggerHook cannot be built .*interval'),
    ('optim_wrapper.optimizer.type', 'AdmW',
     r"optim_wrapper.optimizer.type: AdmW .*'AdamW'"),
    ('optim_wrapper.optimizer.momentun', .9, r"momentun .*'momentum'"),
    ('optim_wrapper.optimizer.lr', '1e-3',
     "optimizer: SGD cannot be built of lr='1e-3'"),
    ('param_scheduler.0.step_sizes', 2,
     r"param_scheduler.0: StepLR takes no step_sizes .*'step_size'"),
    ('train_dataloader.sampler.type', 'DefaultSamplr',
     r"train_dataloader.sampler.type: .*'DefaultSampler'"),
    ('train_dataloader.batch_size', 0,
     'train_dataloader cannot be built .*batch_size=0'),
    ('train_dataloader.dataset', dict(type='Theres'), "'Threes'"),
    ('train_cfg.max_epochs', '12', "train_cfg: .* of max_epochs='12'"),
    ('train_cfg.max_iters', 3, 'EpochBasedTrainLoop takes no max_iters'),
    ('param_scheduler', [dict(type='MultiStepLR')],
     "scheduler.0: .* needs 'milestones"),
    ('train_cfg', None, 'the config cannot be run .*train_cfg'),
])
def test_faults(cfg, key, value, words):
    cfg.merge_from_dict({key: value})
    with pytest.raises(ConfigError, match=words):
        run(cfg)


def test_own_faults_stay(cfg):
    """A class of one's own, and a run that has begun, show where it was."""
    cfg.custom_hooks = [dict(type='broken_hook')]
    with pytest.raises(KeyError, match='of my own'):
        run(cfg)
    cfg.custom_hooks = []
    cfg.train_dataloader.dataset.pipeline = [dict(type='NoInputs')]
    with pytest.raises(TypeError, match='inputs'):
        run(cfg)
