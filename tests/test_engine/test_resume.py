# Copyright (c) mmfishnet authors. All rights reserved.
import os

import pytest
import torch
from mmengine.config import Config

from mmfishnet.engine.resume import (
    check_checkpoint,
    find_checkpoint,
    set_resume,
)


def save(path, age=0):
    torch.save(dict(state_dict=torch.rand(1000)), path)
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
    assert find_checkpoint(str(tmp_path)) == (str(two), [])

    # The second was removed before that.
    two.unlink()
    checkpoint, notes = set_resume(cfg, 'auto')
    assert checkpoint == cfg.load_from == str(one)
    assert [n for n in notes if str(two) in n and 'not exist' in n]
    assert [n for n in notes if str(three) in n and 'cut short' in n]

    # Nothing is left.
    one.unlink()
    (tmp_path / 'last_checkpoint').write_text('')
    save(tmp_path / 'best_coco_bbox_mAP_epoch_1.pth')
    assert find_checkpoint(str(tmp_path))[0] is None


def test_resume_as_the_config_says(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path), load_from='coco.pth'))
    assert set_resume(cfg, None) == (None, [])
    assert 'resume' not in cfg
    cfg.resume = True
    assert set_resume(cfg, None) == ('coco.pth', [])
    assert set_resume(cfg, 'mine.pth') == ('mine.pth', [])
    assert cfg.load_from == 'mine.pth'


def test_damaged_checkpoints_are_refused(tmp_path):
    path = tmp_path / 'a.pth'
    with pytest.raises(FileNotFoundError, match=r'a\.pth'):
        check_checkpoint(str(path))
    check_checkpoint('https://host/a.pth')
    save(path)
    check_checkpoint(str(path))
    content = path.read_bytes()
    for damaged in (content[:-100], b'', content.replace(
            content[2000:2100], bytes(100))):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match='damaged or cut short'):
            check_checkpoint(str(path))
    torch.save(
        dict(state_dict={}), path, _use_new_zipfile_serialization=False)
    check_checkpoint(str(path))
