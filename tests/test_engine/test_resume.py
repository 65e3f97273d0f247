# Copyright (c) mmfishnet authors. All rights reserved.
import os

import pytest
import torch
from mmengine.config import Config

from mmfishnet.checkpoints import CheckpointError
from mmfishnet.engine.exact.resume import (
    find_checkpoint,
    open_checkpoint,
    set_resume,
)
from mmfishnet.engine.from_scratch import follow_checkpoint

RUN = dict(
    meta=dict(epoch=1, iter=8, seed=7),
    message_hub={},
    optimizer={},
    param_schedulers=[])


def save(path, age=0, without=()):
    content = dict(RUN, state_dict=dict(weight=torch.rand(1000)))
    torch.save({k: v for k, v in content.items() if k not in without}, path)
    os.utime(path, (1e9 - age, 1e9 - age))


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 2])
    os.utime(path, (2e9, 2e9))


def test_resume_finds_the_latest_complete_checkpoint(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path), load_from='coco.pth'))
    # The first start of a job that always says --resume.
    checkpoint, notes = set_resume(cfg, 'auto')
    assert (checkpoint, cfg.resume, cfg.load_from) == (None, False, 'coco.pth')
    assert 'from the beginning' in notes[0]

    one, two, three = (tmp_path / f'epoch_{i}.pth' for i in (1, 2, 3))
    save(one, age=2)
    save(two, age=1)
    (tmp_path / 'last_checkpoint').write_text(str(two))
    checkpoint, notes = set_resume(cfg, 'auto')
    assert (checkpoint, notes) == (str(two), [])
    # MMEngine finds the same.
    assert (cfg.resume, cfg.load_from) == (True, None)

    # Killed while saving the third.
    save(three)
    cut(three)
    assert find_checkpoint(str(tmp_path))[:2] == (str(two), [])

    # The second was removed before that.
    two.unlink()
    checkpoint, notes = set_resume(cfg, 'auto')
    assert checkpoint == cfg.load_from == str(one)
    assert str(three) in notes[0] and 'cut short' in notes[0]
    assert f'{one} is the latest in' in notes[1]

    # Nothing is left.
    one.unlink()
    (tmp_path / 'last_checkpoint').write_text('')
    save(tmp_path / 'best_coco_bbox_mAP_epoch_1.pth')
    assert find_checkpoint(str(tmp_path))[0] is None


def test_resume_as_the_config_says(tmp_path):
    coco, mine = (str(tmp_path / name) for name in ('coco.pth', 'mine.pth'))
    save(coco)
    save(mine)
    cfg = Config(dict(work_dir=str(tmp_path), load_from=coco))
    assert set_resume(cfg, None) == (None, [])
    assert 'resume' not in cfg
    cfg.resume = True
    assert set_resume(cfg, None) == (coco, [])
    assert set_resume(cfg, mine) == (mine, [])
    assert cfg.load_from == mine
    # The seed of the run, and a line for what is in a folder.
    assert cfg.randomness == dict(seed=7)
    save(tmp_path / 'epoch_2.pth')
    found, (note, ) = set_resume(cfg, str(tmp_path))
    assert found == cfg.load_from == str(tmp_path / 'epoch_2.pth')
    assert 'latest in' in note
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no checkpoint in the fold'):
        set_resume(cfg, str(tmp_path / 'empty'))


@pytest.mark.parametrize('without, message', [
    (['meta', 'message_hub', 'optimizer', 'param_schedulers'],
     'holds weights alone'),
    (['message_hub'], 'holds weights alone'),
    (['optimizer', 'param_schedulers'], 'the optimizer and of the schedule'),
    (['param_schedulers'], 'not hold the state of the schedule'),
])
def test_what_no_run_can_go_on_from(tmp_path, without, message):
    """The best checkpoint, a published file, weights of others."""
    path = str(tmp_path / 'best.pth')
    save(path, without=without)
    cfg = Config(dict(work_dir='.', param_scheduler=[dict(type='StepLR')]))
    with pytest.raises(ValueError, match=message) as error:
        set_resume(cfg, path)
    assert f'load_from={path}' in str(error.value)


def test_what_starts_anew_is_said(tmp_path):
    path = str(tmp_path / 'epoch_1.pth')
    save(path, without=['optimizer', 'param_schedulers'])
    _, (note, ) = set_resume(Config(dict(work_dir=str(tmp_path))), path)
    assert 'state of the optimizer, which starts anew' in note


@pytest.mark.parametrize('content', [
    [1, 2], None, 'text', torch.zeros(3), dict(state_dict=[1]),
    dict(state_dict=None), dict(state_dict={1: torch.zeros(2)})])
def test_what_holds_no_weights_by_their_names(tmp_path, content):
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'a\.pth is no checkpoint'):
        open_checkpoint(str(tmp_path / 'a.pth'))


def test_meta_of_others(tmp_path):
    """Nobody asks it of weights; no run can go on from it."""
    path, cfg = str(tmp_path / 'a.pth'), Config(dict(work_dir='.'))
    torch.save(dict(RUN, state_dict={}, meta='text'), path)
    assert follow_checkpoint(cfg, path, open_checkpoint(path)) is None
    with pytest.raises(ValueError, match='holds weights alone'):
        set_resume(cfg, path)


def test_damaged_checkpoints_are_refused(tmp_path):
    path = tmp_path / 'a.pth'
    with pytest.raises(FileNotFoundError, match=r'a\.pth'):
        open_checkpoint(str(path))
    assert open_checkpoint('https://host/a.pth') == {}
    save(path)
    assert open_checkpoint(str(path))['meta'] == RUN['meta']
    content = path.read_bytes()
    for damaged in (content[:-100], b'', content.replace(
            content[2000:2100], bytes(100))):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match='damaged or cut short|is empty'):
            open_checkpoint(str(path))
    torch.save(
        dict(state_dict={}), path, _use_new_zipfile_serialization=False)
    assert open_checkpoint(str(path)) == dict(state_dict={})
