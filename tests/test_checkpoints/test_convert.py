# Copyright (c) mmfishnet authors. All rights reserved.
import pytest
import torch
from torchvision.models import resnet18

from mmfishnet.checkpoints import CheckpointError
from mmfishnet.checkpoints.fit import describe
from mmfishnet.checkpoints.names import rename
from mmfishnet.checkpoints.weights import translate
from mmfishnet.models import FishNet, FishNeXt
from mmfishnet.models.convert import convert

from .conftest import build_classifier, official_entries


def equal(a, b):
    """Same names, dtypes and bits."""
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def shapes(state):
    return {k: tuple(v.shape) for k, v in state.items()}


@pytest.mark.parametrize('depth', [99, 150, 201])
def test_every_official_weight_has_one_place(depth):
    entries = official_entries(depth)
    with torch.device('meta'):
        model = build_classifier(depth)
    state = {k: torch.empty(s, device='meta') for k, s in entries.items()}
    assert shapes(convert(state)) == shapes(model.state_dict())
    back = convert(model.state_dict(), 'official')
    assert shapes(back) == {k: tuple(v) for k, v in entries.items()}
    assert describe(translate(back, '')) == f'FishNet-{depth}'


@pytest.mark.parametrize('depth', [99, 150])
def test_every_pytorchcv_weight_has_one_place(depth):
    fishnet = pytest.importorskip('pytorchcv.models.fishnet')
    with torch.device('meta'):
        model = build_classifier(depth)
        state = getattr(fishnet, f'fishnet{depth}')().state_dict()
    normal = convert(state)
    assert shapes(normal) == shapes(model.state_dict())
    assert [rename(key, 'mmpretrain', 'pytorchcv') for key in normal] == [
        *state
    ]


def test_round_trip_is_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in official_entries(99).items():
        state[key] = torch.randn(shape, generator=generator).to(
            torch.int64 if key.endswith('tracked') else torch.float16
            if '.bn2.' in key else torch.float32)
    there = convert(state, 'mmpretrain')
    assert equal(convert(there, 'official'), state)
    assert equal(
        convert(state, 'mmdet'),
        {k: v
         for k, v in there.items() if k.startswith('backbone.')})


# What people met in the authors' better files, by the last commit's names.
BRIDGE = {'3.0.2.': '3.1.0.', '3.0.3.': '3.1.1.', '3.1.': '3.1.3.'}
SCORE_150 = {'9.3.2.': '9.4.0.', '9.3.3.': '9.4.1.', '9.4.1.': '9.4.4.'}
SCORE_201 = {'9.3.0.': '9.2.0.', '9.3.2.': '9.3.0.', '9.3.3.': '9.3.1.',
             '9.4.1.': '9.3.4.'}
SHORTCUT = 'fish.fish.0.0.0.shortcut.'


def lay_out_as(state, names, lone_shortcut=False):
    """Weights of the last commit in a layout of before."""
    found = {}
    for key, value in state.items():
        name = key.removeprefix('fish.fish.')
        for last, before in names.items():
            if name.startswith(last):
                key = f'fish.fish.{before}{name[len(last):]}'
        if lone_shortcut and key.startswith(SHORTCUT):
            if not key.startswith(f'{SHORTCUT}2.'):
                continue
            key = f'{SHORTCUT}weight'
        found[f'module.{key}'] = value
    return found


@pytest.mark.parametrize('names, lone', [
    (BRIDGE, True), (SCORE_150, False), (SCORE_201, True),
    (BRIDGE | SCORE_150, True), (BRIDGE | SCORE_201, False)
], ids=['bridge', '150', '201', 'bridge+150', 'bridge+201'])
def test_layouts_of_the_authors(state, names, lone):
    found = convert(lay_out_as(state, names, lone))
    plain = convert(state)
    norm = {k for k in plain if 'tail1.refine.0.shortcut.0' in k and lone}
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[k], plain[k]) for k in {*plain} - norm)
    if lone:
        shortcut = FishNet(99).tail1.refine[0].shortcut.eval()
        shortcut.load_state_dict({
            k.removeprefix('backbone.tail1.refine.0.shortcut.'): v
            for k, v in found.items() if '.tail1.refine.0.shortcut.' in k
        })
        images = torch.rand(2, 64, 8, 8)  # what a ReLU leaves
        assert torch.equal(shortcut(images), shortcut[2](images))


@pytest.mark.parametrize('change, message', [
    # A layer of two layouts, or a shortcut whose norm is not nothing.
    ({'9.3.2.weight': 'module.fish.fish.9.3.2.weight'},
     r"1 of its .* unknown: 'fish.fish.9.3.2.weight"),
    ({'1.0.0.shortcut.2.weight': 'module.fish.fish.1.0.0.shortcut.weight'},
     r"1 of its .* unknown: 'fish.fish.1.0.0.shortcut.weight"),
    ({'9.4.4.bias': None}, r"1 of \d+ tensors are missing: 'head.fc.bias"),
])
def test_what_fits_no_layout(state, change, message):
    found = lay_out_as(state, BRIDGE | SCORE_150)
    for name, key in change.items():
        value = found.get(f'module.fish.fish.{name}')
        if key is None:
            del found[f'module.fish.fish.{name}']
        else:
            found[key] = torch.ones(1) if value is None else value
    with pytest.raises(CheckpointError, match=message):
        convert(found)


@pytest.fixture
def state(reference):
    return convert(reference.state_dict(), 'official')


@pytest.mark.parametrize('change, words', [
    (lambda state: resnet18().state_dict(),
     ['file.pth is not a FishNet checkpoint: it holds 122 tensors, named '
      "'conv1.weight', 'bn1.weight', "]),
    (lambda state: {
        key: torch.empty(32, 1, 3, 3) if key == 'conv1.0.weight' else value
        for key, value in state.items() if '.9.1.3.conv2.' not in key},
     ['file.pth does not fit FishNet-99 as it was released',
      '1 of 599 tensors are missing: '
      "'backbone.head3.transfer.3.conv2.weight'.",
      "another shape: 'backbone.stem.0.weight (32, 1, 3, 3), not "
      "(32, 3, 3, 3)'"]),
    # A block less is not taken for a network that is smaller.
    (lambda state: {key: value for key, value in state.items()
                    if not key.startswith('fish.fish.2.0.5.')},
     ['FishNet-99 as', '15 of 599 tensors are missing: '
      "'backbone.tail3.refine.5.norm1"]),
    (lambda state: {**state, 'fish.fish.10.0.0.bn1.weight': torch.ones(4)},
     ['1 of its 600 tensors have names that are unknown: '
      "'fish.fish.10.0.0.bn1.weight'"]),
    (lambda state: convert(state, 'mmdet'),
     ['holds FishNet-99 without neck.layers. and head.fc.']),
    (lambda state: FishNeXt(150).state_dict(), ['FishNeXt-150'])])
def test_what_is_no_fishnet_of_the_authors(state, change, words):
    with pytest.raises(CheckpointError) as error:
        convert(change(state), 'official', source='file.pth')
    for part in words:
        assert part in str(error.value)


def test_unknown_target(state):
    with pytest.raises(ValueError, match=r"to='timm' .*'mmpretrain', 'mmdet'"):
        convert(state, 'timm')
