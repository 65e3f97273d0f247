# Copyright (c) mmfishnet authors. All rights reserved.
import builtins
import os
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.registry import PARAM_SCHEDULERS

from mmfishnet.checkpoints import CheckpointError, read_checkpoint

STATE = {'weight': torch.arange(3000.)}
FORMATS = pytest.mark.parametrize('zipped', [True, False])


def save(content, path, zipped=True):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return str(path)


class Malicious:

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Note:
    """What somebody's own hook may keep in a checkpoint."""


@FORMATS
def test_what_the_user_allows(tmp_path, zipped):
    # Beside MMEngine's logs, which torch alone would refuse.
    content = dict(STATE, note=Note(), log=HistoryBuffer([1.0], [1]))
    path = save(content, tmp_path / 'file.pth', zipped)
    with pytest.raises(CheckpointError, match='Note.*add_safe_globals'):
        read_checkpoint(path)
    with torch.serialization.safe_globals([Note]):
        read = read_checkpoint(path)
    assert isinstance(read['note'], Note)
    assert read['log'].current() == 1.0


@FORMATS
@pytest.mark.parametrize('function', ['system', 'exec', 'getattr'])
def test_never_runs_code(tmp_path, zipped, function):
    marker = tmp_path / 'marker'
    content = dict(
        system=Malicious(os.system, f'touch {marker}'),
        exec=Malicious(builtins.exec, f'open({str(marker)!r}, "w")'),
        # Allowed for MMEngine's logs, and for nothing else.
        getattr=Malicious(getattr, HistoryBuffer, '__init__'))[function]
    path = save(dict(STATE, more=content), tmp_path / 'file.pth', zipped)
    with pytest.raises(CheckpointError, match=f'file.pth .*{function}.*'
                       'could run code. It was not read'):
        read_checkpoint(path)
    assert not marker.exists()
    if function != 'getattr':  # the file does what it is meant to
        torch.load(path, weights_only=False)
        assert marker.exists()


@FORMATS
@pytest.mark.parametrize('part', [0, 1, 100, 0.5, 0.99])
def test_cut_short(tmp_path, zipped, part):
    path = save(STATE, tmp_path / 'file.pth', zipped)
    size = os.path.getsize(path)
    os.truncate(path, int(part * size) if isinstance(part, float) else part)
    with pytest.raises(
            CheckpointError,
            match='file.pth .*(damaged or cut short|it is empty|first bytes)'):
        read_checkpoint(path)


def test_web_page(tmp_path):
    path = tmp_path / 'page.pth'
    path.write_text('<!DOCTYPE html><html></html>')
    with pytest.raises(CheckpointError, match='not a checkpoint .*<!DOCTYPE'):
        read_checkpoint(str(path))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='no.pth can not be found'):
        read_checkpoint(str(tmp_path / 'no.pth'))


def test_archives(tmp_path):
    save(STATE, tmp_path / 'file.pth')
    with zipfile.ZipFile(tmp_path / 'one.zip', 'w') as archive:
        archive.write(tmp_path / 'file.pth', 'file.pth')
    content = read_checkpoint(str(tmp_path / 'one.zip'))
    assert torch.equal(content['weight'], STATE['weight'])
    with zipfile.ZipFile(tmp_path / 'two.zip', 'w') as archive:
        archive.writestr('a', 'a')
        archive.writestr('b', 'b')
    with pytest.raises(CheckpointError, match='ZIP archive, .* 2 files, a, b'):
        read_checkpoint(str(tmp_path / 'two.zip'))


def test_what_runs_save_besides_weights(tmp_path):
    """MMEngine's logs and numpy's numbers, as in any run's checkpoint."""
    hub = MessageHub('test')
    for value in 1., 2.:
        hub.update_scalar('loss', value)
    hub.update_info('best', np.float64(0.5))
    path = save(
        dict(
            state_dict=STATE,
            message_hub=hub.state_dict(),
            best_prec1=np.float32(77.41),
            dtype=torch.float16),
        tmp_path / 'run.pth')
    content = read_checkpoint(path)
    assert content['message_hub']['log_scalars']['loss'].mean() == 1.5
    assert content['message_hub']['runtime_info']['best'] == 0.5
    assert content['best_prec1'] == np.float32(77.41)
    assert content['dtype'] is torch.float16


SCHEDULERS = [
    dict(type='LinearLR', start_factor=0.1),
    dict(type='ConstantLR'),
    dict(type='StepLR', step_size=1),
    dict(type='MultiStepLR', milestones=[2, 3]),
    dict(type='ExponentialLR', gamma=0.9),
    dict(type='CosineAnnealingLR', T_max=5),
    dict(
        type='CosineRestartLR',
        periods=[2, 3],
        restart_weights=[1, 0.5],
        eta_min=0),
    dict(type='PolyLR'),
    dict(type='OneCycleLR', eta_max=0.1, total_steps=5),
    dict(type='ReduceOnPlateauLR'),
]


@pytest.mark.parametrize('cfg', SCHEDULERS, ids=lambda cfg: cfg['type'])
def test_runs_resume_with_every_scheduler(cfg, tmp_path):

    def build():
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
        return optimizer, PARAM_SCHEDULERS.build(
            dict(cfg), default_args=dict(optimizer=optimizer))

    optimizer, scheduler = build()
    optimizer.step()
    scheduler.step()
    path = save(
        dict(
            state_dict=STATE,
            optimizer=optimizer.state_dict(),
            param_schedulers=[scheduler.state_dict()]), tmp_path / 'run.pth')
    # In a new process, where MMEngine has made no object of these yet.
    content = read_checkpoint(path)
    again, resumed = build()
    again.load_state_dict(content['optimizer'])
    resumed.load_state_dict(content['param_schedulers'][0])
    for _ in range(2):
        for o, s in ((optimizer, scheduler), (again, resumed)):
            o.step()
            s.step()
        assert again.param_groups[0]['lr'] == optimizer.param_groups[0]['lr']
