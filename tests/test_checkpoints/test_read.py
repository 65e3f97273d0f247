# Copyright (c) mmfishnet authors. All rights reserved.
import argparse
import builtins
import datetime
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.registry import PARAM_SCHEDULERS

from mmfishnet.checkpoints import CheckpointError, read_checkpoint
from mmfishnet.checkpoints.read import is_damaged

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


TORCHS_OWN = pytest.mark.skipif(
    not hasattr(torch.serialization, 'safe_globals'),
    reason='torch is older than 2.5')


@TORCHS_OWN
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


def test_what_is_no_checkpoint(tmp_path):
    path = tmp_path / 'page.html'
    path.write_text('<!DOCTYPE html><html></html>')
    with pytest.raises(CheckpointError, match='not a checkpoint .*<!DOCTYPE'):
        read_checkpoint(str(path))
    with pytest.raises(FileNotFoundError, match='no.pth .*exist; .*none'):
        read_checkpoint(str(tmp_path / 'no.pth'))
    with pytest.raises(FileNotFoundError, match='nor does the folder'):
        read_checkpoint(str(tmp_path / 'work_dir/no.pth'))
    save(STATE, tmp_path / 'epoch_1.pth')
    with pytest.raises(FileNotFoundError, match=r"\*.pth .*'epoch_1.pth'"):
        read_checkpoint(str(tmp_path / 'best_*.pth'))
    with zipfile.ZipFile(tmp_path / 'one.zip', 'w') as archive:
        archive.write(tmp_path / 'epoch_1.pth', 'file.pth')
    content = read_checkpoint(str(tmp_path / 'one.zip'))
    assert torch.equal(content['weight'], STATE['weight'])
    with zipfile.ZipFile(tmp_path / 'two.zip', 'w') as archive:
        archive.writestr('a', 'a')
        archive.writestr('b', 'b')
    with pytest.raises(CheckpointError, match='ZIP archive, .* 2 files, a, b'):
        read_checkpoint(str(tmp_path / 'two.zip'))


def test_what_runs_save_besides_weights(tmp_path):
    """MMEngine's logs, numpy's numbers, and a script's arguments."""
    hub = MessageHub('test')
    for value in 1., 2.:
        hub.update_scalar('loss', value)
    hub.update_info('best', np.float64(0.5))
    more = dict(
        args=argparse.Namespace(lr=0.1, out=Path('runs')),
        best_prec1=np.float32(77.41),
        date=datetime.datetime(2026, 1, 2),
        dtype=torch.float16,
        names=np.array(['a', 'b']),
        seen={1, 2},
        state=np.random.get_state()[1])
    path = save(
        dict(state_dict=STATE, message_hub=hub.state_dict(), **more),
        tmp_path / 'run.pth')
    content = read_checkpoint(path)
    assert content['message_hub']['log_scalars']['loss'].mean() == 1.5
    assert content['message_hub']['runtime_info']['best'] == 0.5
    for key, value in more.items():
        assert type(content[key]) is type(value)
        assert np.all(content[key] == value)


def test_files_of_any_numpy_and_python(tmp_path):
    """The names of things have changed; what they mean has not."""
    path = save(dict(a=np.float64(3), b=Path('x')), tmp_path / 'file.pth')
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in files.items():
            for one, other in ((b'numpy._core.', b'numpy.core.'),
                               (b'pathlib\n', b'pathlib._local\n')):
                content = content.replace(one, other)
            archive.writestr(name, content)
    assert read_checkpoint(path) == dict(a=3, b=Path('x'))


def test_damage(tmp_path):
    path = save(STATE, tmp_path / 'file.pth')
    assert not is_damaged(path)
    with open(path, 'r+b') as file:
        file.seek(os.path.getsize(path) // 2)
        file.write(b'????')
    assert is_damaged(path)
    os.truncate(path, os.path.getsize(path) - 1)
    assert is_damaged(path)
    assert not is_damaged(save(STATE, path, zipped=False))
    # Without checksums, which older torch always writes.
    if hasattr(torch.serialization, 'set_crc32_options'):
        torch.serialization.set_crc32_options(False)
        try:
            save(STATE, path)
        finally:
            torch.serialization.set_crc32_options(True)
        assert torch.equal(read_checkpoint(path)['weight'], STATE['weight'])
        assert not is_damaged(path)


@FORMATS
@pytest.mark.parametrize('protocol', range(2, 6))
def test_other_pickle_protocols(tmp_path, protocol, zipped):
    path = str(tmp_path / 'file.pth')
    content = dict(STATE, text='x' * 300)
    for more in {}, dict(evil=os.system):
        torch.save({**content, **more}, path, pickle_protocol=protocol,
                   _use_new_zipfile_serialization=zipped)
        if not more:
            read = read_checkpoint(path)
            assert read.pop('text') == content['text']
            assert torch.equal(read.pop('weight'), STATE['weight'])
            assert not read
    with pytest.raises(CheckpointError, match='holds more than weights'):
        read_checkpoint(path)


SCHEDULERS = [
    dict(type='LinearLR', start_factor=0.1),
    dict(type='ConstantLR'),
    dict(type='StepLR', step_size=1),
    dict(type='MultiStepLR', milestones=[2, 3]),
    dict(type='ExponentialLR', gamma=0.9),
    dict(type='CosineAnnealingLR', T_max=5),
    dict(type='CosineRestartLR', periods=[2, 3], restart_weights=[1, 0.5],
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
