"""What a training shows on the screen, in its file and in trackers."""
import json
import re
import uuid

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmfishnet.engine.build import build_runner
from mmfishnet.engine.exact.resume import set_resume
from mmfishnet.engine.training import enable_tracking


@MODELS.register_module(force=True)
class LineForLog(BaseModel):

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs, targets, mode='loss'):
        return dict(loss=(self.layer(inputs) - targets).pow(2).mean())


@DATASETS.register_module(force=True)
class PointsForLog(Dataset):

    def __len__(self):
        return 24

    def __getitem__(self, i):
        return torch.full((1, ), i / 24), torch.full((1, ), 100.)


def config(tmp_path):
    init_default_scope('mmengine')
    return Config(
        dict(
            model=dict(type='LineForLog'),
            work_dir=str(tmp_path / 'run'),
            experiment_name=f'log_{uuid.uuid4().hex}',
            train_dataloader=dict(
                batch_size=4,
                dataset=dict(type='PointsForLog'),
                collate_fn=dict(type='default_collate'),
                sampler=dict(type='DefaultSampler', shuffle=False)),
            train_cfg=dict(by_epoch=True, max_epochs=2),
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=1e-3),
                clip_grad=dict(max_norm=5.0)),
            custom_hooks=[dict(type='mmfishnet.ClipGradUntilHook', end=1)],
            default_hooks=dict(logger=dict(type='LoggerHook', interval=3)),
            visualizer=dict(
                type='Visualizer',
                vis_backends=[dict(type='LocalVisBackend')]),
            default_scope='mmengine',
            launcher='none',
            # So that there is something long to log.
            notes_of_the_user={f'line{i}': i for i in range(50)}))


def test_screen_and_file(tmp_path, capsys):
    build_runner(config(tmp_path)).train()
    log, = (tmp_path / 'run').glob('*/*.log')
    log = log.read_text()
    scalars, = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    screen = re.sub(r'\x1b\[\d*m', '', capsys.readouterr().out)
    # The config is in the file, word for word, and named on the screen.
    assert 'line49=49' in log and 'line49=49' not in screen
    assert re.search(r'Config: \d+ lines, in .*\.log', screen)
    assert re.search(r'System environment: \d+ lines, in ', screen)
    assert 'GCC' in log and 'GCC' not in screen
    assert len(screen.splitlines()) < 30
    # The lines of the training are in both.
    lines = re.findall(r'Epoch\(train\).*', screen)
    assert lines == re.findall(r'Epoch\(train\).*', log)
    assert len(lines) == 4
    for line in lines:
        for piece in ('lr: ', 'eta: ', 'time: ', 'loss: ', 'grad_norm: ',
                      'images/s: ', 'memory: '):
            assert piece in line, piece
    # Clipping is in force in the first epoch, and it is said how.
    assert ['clipped to: 5' in line
            for line in lines] == [True, True, False, False]

    entries = [entry for entry in map(json.loads, scalars.open())
               if 'loss' in entry]
    assert [entry.get('clip_norm') for entry in entries] == [5, 5, None, None]
    for entry in entries:
        assert entry['images_per_s'] == pytest.approx(4 / entry['time'])
        assert 100 < entry['memory'] < 100_000


def test_runner_of_ones_own_is_named(tmp_path):
    cfg = config(tmp_path)
    cfg.runner_type = 'Runner'
    assert type(build_runner(cfg, ['a note'])) is Runner
    log, = (tmp_path / 'run').glob('*/*.log')
    assert 'a note' in log.read_text()
    assert 'Runner runs as it is: a run that is killed' in log.read_text()


def test_seed_that_was_drawn_is_named(tmp_path):
    """In the config that the run leaves, by which it is drawn again."""
    runner = build_runner(config(tmp_path))
    saved, = (tmp_path / 'run').glob('*/vis_data/config.py')
    assert Config.fromfile(saved).randomness == dict(seed=runner.seed)
    runner.save_checkpoint(str(tmp_path), 'a.pth', save_optimizer=False,
                           save_param_scheduler=False, meta={})
    cfg = config(tmp_path)
    set_resume(cfg, str(tmp_path / 'a.pth'))
    assert cfg.randomness == dict(seed=runner.seed)


def test_trackers(tmp_path, monkeypatch):
    """TensorBoard's files can be read back; W&B's stay on this machine."""
    wandb = pytest.importorskip('wandb')
    reader = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator')
    monkeypatch.delenv('WANDB_MODE', raising=False)
    monkeypatch.setenv('WANDB_SILENT', 'true')
    cfg = config(tmp_path)
    enable_tracking(cfg, ['tensorboard', 'wandb'])
    runner = build_runner(cfg)
    runner.train()
    events, = (tmp_path / 'run').glob('*/vis_data/events.out*')
    accumulator = reader.EventAccumulator(str(events))
    accumulator.Reload()
    scalars, = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    losses = [json.loads(line)['loss'] for line in scalars.open()]
    assert [event.value for event in accumulator.Scalars('loss')
            ] == pytest.approx(losses, rel=1e-5)
    assert 'images_per_s' in accumulator.Tags()['scalars']
    written, = (tmp_path / 'run').glob(
        '*/vis_data/wandb/offline-run-*/run-*.wandb')
    # So does a test of the run, which reads the config that it leaves.
    saved, = (tmp_path / 'run').glob('*/vis_data/config.py')
    backend = Config.fromfile(saved).visualizer.vis_backends[-1]
    assert backend.init_kwargs.mode == 'offline'
    wandb.finish()
    assert b'images_per_s' in written.read_bytes()


def test_tracker_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr('mmfishnet.engine.training.find_spec',
                        lambda name: None)
    with pytest.raises(ValueError, match='pip install tensorboard'):
        enable_tracking(config(tmp_path), ['tensorboard'])
