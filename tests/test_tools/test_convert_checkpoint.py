# Copyright (c) mmfishnet authors. All rights reserved.
"""The command; what is converted is in tests/test_checkpoints."""
import os

import pytest
import torch

from mmfishnet.models.convert import convert


def load(path):
    return torch.load(path, weights_only=True)


def test_there_and_back(call_tool, tmp_path):
    fishnet = pytest.importorskip('pytorchcv.models.fishnet')
    state = convert(fishnet.fishnet99().state_dict(), 'official')
    state['conv1.1.num_batches_tracked'] += 5
    official, ours, back = (
        tmp_path / name for name in ('a.tar', 'new/b.pth', 'c.tar'))
    torch.save(dict(state_dict={f'module.{k}': v for k, v in state.items()}),
               official)
    done = call_tool('convert_checkpoint', official, ours)
    assert done.returncode == 0, done.stderr
    assert 'FishNet-99 for mmpretrain' in done.stdout
    content = load(ours)
    assert content['meta']['arch'] == 'FishNet-99'
    assert {key.split('.')[0] for key in content['state_dict']} == {
        'backbone', 'neck', 'head'}

    done = call_tool('convert_checkpoint', ours, back, '--to', 'official')
    assert done.returncode == 0, done.stderr
    content = load(back)
    assert content['arch'] == 'fishnet99'
    assert list(content['state_dict']) == list(state)
    for key, value in content['state_dict'].items():
        assert value.dtype == state[key].dtype
        assert torch.equal(value, state[key])


def test_errors_leave_nothing(call_tool, tmp_path):
    torch.save({'conv1.weight': torch.ones(2)}, tmp_path / 'other.pth')
    done = call_tool('convert_checkpoint', tmp_path / 'other.pth',
                     tmp_path / 'out.pth')
    assert done.returncode == 1
    assert 'other.pth is not a FishNet checkpoint' in done.stderr
    assert 'Traceback' not in done.stderr
    assert os.listdir(tmp_path) == ['other.pth']
