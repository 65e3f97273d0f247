"""What is read is what MMEngine wrote, by its own runner."""
import itertools
import json
import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmfishnet.checkpoints import read_checkpoint
from mmfishnet.work_dir import config_in, read_run, read_runs

LENGTH = 6  # batches in an epoch
NUMBERS = itertools.count()


class Line(BaseModel):

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, inputs, mode='tensor'):
        output = self.layer(inputs)
        return dict(loss=output.mean()) if mode == 'loss' else [output]


class Steps(BaseMetric):
    """As many as were evaluated so far, and a loss."""
    default_prefix, done = None, 0

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        Steps.done += 1
        return {'mIoU': 10. * Steps.done, 'coco/bbox_mAP': 0.5,
                'val_loss': 7., 'val_decode.loss_ce': 6.}


def run(folder, train_cfg, resume=False, by_epoch=True, **logged):
    """A training by MMEngine's own runner; the scalars that it wrote."""
    loader = dict(dataset=[dict(inputs=torch.ones(1))] * LENGTH, batch_size=1,
                  collate_fn=dict(type='default_collate'))
    Steps.done = 0
    train_cfg = dict(val_interval=1, by_epoch=by_epoch) | train_cfg
    Runner(
        Line(), str(folder),
        train_dataloader=dict(
            loader, sampler=dict(
                type='DefaultSampler' if by_epoch else 'InfiniteSampler',
                shuffle=False)),
        val_dataloader=dict(loader, sampler=dict(type='DefaultSampler')),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
        train_cfg=train_cfg, val_cfg={}, val_evaluator=[Steps()],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=2, **logged),
            checkpoint=dict(
                type='CheckpointHook', by_epoch=by_epoch,
                interval=train_cfg['val_interval'])),
        log_processor=dict(by_epoch=by_epoch), resume=resume,
        experiment_name=f'run_{next(NUMBERS)}',
        log_level='ERROR',
        cfg=Config(dict(train_cfg=train_cfg))).train()
    return sorted(folder.glob('*/vis_data/scalars.json'))[-1]


def places(run, entries):
    return [run.place(entry) for entry in entries]


@pytest.mark.parametrize('logged', [{}, dict(log_metric_by_epoch=False)])
def test_by_epochs_and_by_iterations(tmp_path, logged):
    run(tmp_path / 'a', dict(max_epochs=3), **logged)
    read = read_run(tmp_path / 'a')
    assert read.unit == 'epoch'
    assert places(read, read.train) == [i / 3 for i in range(1, 10)]
    assert places(read, read.val) == [1, 2, 3]
    assert read.metrics == {'mIoU': 30, 'coco/bbox_mAP': 0.5}
    assert [entry['loss'] for entry in read.val] == [7, 7, 7]
    for epoch in (1, 2, 3):
        held = read_checkpoint(str(tmp_path / f'a/epoch_{epoch}.pth'))
        assert read.evaluation_of(held['meta'])['mIoU'] == 10 * epoch
    assert config_in(held, 'it').train_cfg.max_epochs == 3

    run(tmp_path / 'b', dict(max_iters=12, val_interval=4), by_epoch=False,
        **logged)
    read = read_run(tmp_path / 'b')
    assert read.unit == 'iteration'
    assert places(read, read.train) == [2, 4, 6, 8, 10, 12]
    assert places(read, read.val) == [4, 8, 12]
    held = read_checkpoint(str(tmp_path / 'b/iter_8.pth'))
    assert read.evaluation_of(held['meta'])['mIoU'] == 20
    assert read.evaluation_of(dict(iter=7)) == {}


def test_resumed_cut_and_copied(tmp_path):
    first = run(tmp_path / 'a', dict(max_epochs=2))
    whole = read_run(tmp_path / 'a')
    # Killed in the second epoch, in the middle of a line.
    lines = first.read_text().splitlines()
    first.write_text('\n'.join(lines[:-2]) + '\n' + lines[-2][:20])
    read = read_run(tmp_path / 'a')
    assert places(read, read.val) == [1]
    assert len(read.train) == len(whole.train) - 1
    first.write_text('\n'.join(lines[:-1]) + '\n' + lines[-1][:20])

    (tmp_path / 'a/epoch_2.pth').unlink()
    (tmp_path / 'a/last_checkpoint').write_text(
        str(tmp_path / 'a/epoch_1.pth'))
    first.parents[1].rename(tmp_path / 'a/20200101_000000')
    second = run(tmp_path / 'a', dict(max_epochs=3), resume=True)
    read = read_run(tmp_path / 'a')
    assert read.parts == 2 and places(read, read.val) == [1, 2, 3]
    assert [entry['iter'] for entry in read.train] == list(range(2, 19, 2))
    again = [json.loads(line) for line in second.read_text().splitlines()]
    assert read.train[3]['loss'] == again[0]['loss']
    assert read.config.train_cfg.max_epochs == 3

    # What a test left there later is not the training's.
    later = tmp_path / 'a/99990101_000000/vis_data/config.py'
    later.parent.mkdir(parents=True)
    later.write_text("load_from = 'epoch_3.pth'")
    (later.parents[1] / 'result.json').write_text('{"mIoU": 12.5}')
    shutil.move(tmp_path / 'a', tmp_path / 'b/a')
    (tmp_path / 'b/a/last_checkpoint').write_text('/gone/runs/a/epoch_2.pth')
    moved = read_run(tmp_path / 'b/a')
    assert moved.config.train_cfg.max_epochs == 3
    assert moved.checkpoint == str(tmp_path / 'b/a/epoch_2.pth')
    assert moved.tests == [{'mIoU': 12.5}] and moved.parts == 2
    (tmp_path / 'b/a/last_checkpoint').unlink()
    assert read_run(tmp_path / 'b/a').checkpoint.endswith('epoch_3.pth')

    shutil.copytree(tmp_path / 'b/a', tmp_path / 'c/a')
    shutil.copytree(tmp_path / 'b/a', tmp_path / 'c/d')
    names = [run.name for run in read_runs(
        [tmp_path / name for name in ('b/a', 'c/a', 'c/d', 'b/../b/a')])]
    assert names == ['b/a', 'c/a', 'd']
    with pytest.raises(FileNotFoundError, match=r"below it: .*/a'"):
        read_run(tmp_path / 'b')
    with pytest.raises(FileNotFoundError, match=r'--work-dir\.$'):
        read_run(tmp_path / 'b/a/99990101_000000/vis_data')
    with pytest.raises(FileNotFoundError, match='does not exist'):
        read_run(tmp_path / 'nowhere')


def test_pure_python_configs(tmp_path):
    """As MMEngine leaves them in folder and checkpoint, classes and all."""
    source = tmp_path / 'source.py'
    source.write_text(
        'from mmdet.models import MaskRCNN\n'
        'from mmengine.runner import EpochBasedTrainLoop\n'
        'train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=4)\n'
        'model = dict(type=MaskRCNN)\n')
    folder = tmp_path / 'run/20300101_000000/vis_data'
    folder.mkdir(parents=True)
    cfg = Config.fromfile(source)
    cfg.dump(folder / 'config.py')
    read = read_run(tmp_path / 'run')
    assert read.unit == 'epoch' and read.config.train_cfg.max_epochs == 4
    held = config_in(dict(meta=dict(cfg=cfg.pretty_text)), 'it')
    assert held.to_dict() == read.config.to_dict()
    with pytest.raises(ValueError, match=r'a\.pth carries no config'):
        config_in(dict(meta={}), 'a.pth')
