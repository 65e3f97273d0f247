# Copyright (c) mmfishnet authors. All rights reserved.
import os

import pytest
import torch

from mmfishnet.models import FishNet
from mmfishnet.models.convert import convert, convert_file


def load(path):
    return torch.load(path, weights_only=True)


def test_there_and_back(run_tool, call_tool, tmp_path):
    fishnet = pytest.importorskip('pytorchcv.models.fishnet')
    state = convert(fishnet.fishnet99().state_dict(), 'official')
    state['conv1.1.num_batches_tracked'] += 5
    torch.save(
        dict(state_dict={f'module.{k}': v for k, v in state.items()}),
        tmp_path / 'official.tar')

    done = run_tool('convert_checkpoint', tmp_path / 'official.tar',
                    tmp_path / 'new/classifier.pth')
    assert done.returncode == 0, done.stderr
    assert 'FishNet-99 for mmpretrain' in done.stdout
    classifier = load(tmp_path / 'new/classifier.pth')
    assert classifier['meta']['arch'] == 'FishNet-99'
    assert {k.split('.')[0]
            for k in classifier['state_dict']} == {'backbone', 'neck', 'head'}

    assert call_tool('convert_checkpoint', tmp_path / 'new/classifier.pth',
                     tmp_path / 'back.tar', '--to',
                     'official').returncode == 0
    back = load(tmp_path / 'back.tar')
    assert back['arch'] == 'fishnet99'
    assert list(back['state_dict']) == list(state)
    for key, value in back['state_dict'].items():
        assert value.dtype == state[key].dtype
        assert torch.equal(value, state[key])

    convert_file(
        str(tmp_path / 'back.tar'), str(tmp_path / 'backbone.pth'), 'mmdet')
    model = FishNet(99)
    model.load_state_dict({
        k.replace('backbone.', '', 1): v
        for k, v in load(tmp_path / 'backbone.pth')['state_dict'].items()
    })


def test_errors_leave_nothing(call_tool, tmp_path):
    torch.save({'conv1.weight': torch.ones(2)}, tmp_path / 'other.pth')
    done = call_tool('convert_checkpoint', tmp_path / 'other.pth',
                     tmp_path / 'out.pth')
    assert done.returncode == 1
    assert 'other.pth is not a FishNet checkpoint' in done.stderr
    assert 'Traceback' not in done.stderr
    assert os.listdir(tmp_path) == ['other.pth']
