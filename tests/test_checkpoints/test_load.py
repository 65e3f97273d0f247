# Copyright (c) mmfishnet authors. All rights reserved.
"""What a backbone and a score neck load as their own pretrained file."""
import os
import sys
import threading
from collections import OrderedDict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model.weight_init import PretrainedInit
from torchvision.models import resnet18

from fish import TINY
from mmfishnet.checkpoints import CheckpointError
from mmfishnet.models import FishNet, FishNetScore, PreActResNet
from mmfishnet.models.convert import convert
from mmfishnet.models.pretrained_module import load_pretrained

from .conftest import build_classifier, randomize

FORMATS = ('official', 'pytorchcv', 'mmpretrain')
WIDER = dict(TINY, tail_channels=(32, 64, 128))


@pytest.fixture(autouse=True)
def quiet():
    """MMEngine logs a line for each weight that it initialises."""
    MMLogger.get_current_instance().setLevel('ERROR')


def pretrained(path, **options):
    return dict(type='Pretrained', checkpoint=str(path), **options)


def holds(module, files, prefix=''):
    """Whether a module has the weights of the files, counters aside."""
    wanted = torch.load(files['mmpretrain'])['state_dict']
    own = {
        prefix + k: v
        for k, v in module.state_dict().items() if 'num_batches' not in k
    }
    return all(torch.equal(v, wanted[k]) for k, v in own.items())


def equal(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(
        torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize('depth, dtype, tolerance', [
    (99, torch.float32, 1e-5), (150, torch.float64, 1e-12)])
@torch.no_grad()
def test_logits_equal_the_original(depth, dtype, tolerance):
    fishnet = pytest.importorskip('pytorchcv.models.fishnet')
    torch.manual_seed(depth)
    theirs = getattr(fishnet, f'fishnet{depth}')()
    theirs = randomize(theirs.to(dtype)).eval()
    ours = build_classifier(depth).to(dtype).eval()
    ours.load_state_dict(convert(theirs.state_dict()))
    # Theirs pools 7x7, the size of the last feature of 224x224.
    theirs.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    images = torch.randn(2, 3, 64, 96, dtype=dtype)
    last = images.contiguous(memory_format=torch.channels_last)
    for a, b in ((ours(images), theirs(last)),
                 (ours.extract_feat(images)[0],
                  theirs.features(last).flatten(1))):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize('name', [*FORMATS, 'mmdet'])
def test_backbone_and_score_neck(name, files):
    model = FishNet(
        99, frozen_stages=0, norm_cfg=dict(type='BN', requires_grad=False),
        init_cfg=pretrained(files[name]))
    model.init_weights()
    assert holds(model, files, 'backbone.')
    neck = FishNetScore(init_cfg=pretrained(files[name]))
    if name == 'mmdet':
        with pytest.raises(CheckpointError, match='holds a backbone alone, '
                           'without the score layers'):
            neck.init_weights()
        return
    neck.init_weights()
    assert holds(neck, files, 'neck.')


def test_prefix(files):
    """Without the last stage's output, beside other initialisers."""
    model = FishNet(
        99, out_indices=(0, 1, 2), init_cfg=[
            dict(pretrained(files['official'], prefix='backbone'),
                 type=PretrainedInit),
            dict(type='Kaiming', layer='Conv2d')])
    model.init_weights()
    assert holds(model, files, 'backbone.')


def test_in_a_model_and_once(files, tmp_path):
    """MMEngine initialises the backbone among its other children."""
    model = build_classifier(
        99,
        backbone=dict(init_cfg=pretrained(files['official'])),
        neck=dict(init_cfg=pretrained(files['official'])))
    model.init_weights()
    assert holds(model.backbone, files, 'backbone.')
    assert holds(model.neck, files, 'neck.')
    assert not holds(model, files)
    with torch.no_grad():
        model.backbone.stem[0].weight.zero_()
    model.backbone.init_weights()
    assert not model.backbone.stem[0].weight.any()


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'model.backbone.'])
def test_preact_resnet(prefix, tmp_path):
    theirs = randomize(PreActResNet((1, 1, 1, 1)))
    state = {prefix + k: v for k, v in theirs.state_dict().items()}
    if prefix:
        state['head.fc.bias'] = torch.ones(3)
    torch.save(dict(state_dict=state), tmp_path / 'file.pth')
    init_cfg = pretrained(tmp_path / 'file.pth')
    ours = PreActResNet((1, 1, 1, 1), init_cfg=init_cfg)
    ours.init_weights()
    assert equal(ours, theirs)
    PreActResNet((1, 1, 1, 1), out_indices=(1, ),
                 init_cfg=init_cfg).init_weights()
    with pytest.raises(CheckpointError, match=r'file.pth does not fit the '
                       r'model, PreActResNet: .* tensors are missing: '
                       r"'backbone.stage3.1.norm1.weight"):
        PreActResNet((1, 1, 2, 1), init_cfg=init_cfg).init_weights()
    with pytest.raises(CheckpointError, match='is not a FishNet checkpoint'):
        FishNet(99, init_cfg=init_cfg).init_weights()


def test_url(files, tmp_path, monkeypatch):
    """By MMEngine's own loader."""
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    folder, name = os.path.split(files['official'])
    with ThreadingHTTPServer(
        ('127.0.0.1', 0),
            partial(SimpleHTTPRequestHandler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f'http://127.0.0.1:{server.server_port}/{name}'
        model = FishNet(99, init_cfg=pretrained(url))
        model.init_weights()
        server.shutdown()
    assert holds(model, files, 'backbone.')
    assert name in os.listdir(tmp_path / 'hub/checkpoints')


# Files that people have -----------------------------------------------------


@pytest.fixture(scope='module')
def tiny():
    torch.manual_seed(0)
    return randomize(FishNet(WIDER))


def named(model, prefix):
    return OrderedDict(
        (prefix + key, value) for key, value in model.state_dict().items())


def load_tiny(path, depth=WIDER, prefix=None, **options):
    init_cfg = pretrained(path)
    if prefix:
        init_cfg.update(prefix=prefix)
    model = FishNet(depth, init_cfg=init_cfg, **options)
    model.init_weights()
    return model


WRAPS = [
    lambda state: state, lambda state: dict(state_dict=state),
    lambda state: dict(epoch=3, model=state),
    lambda state: dict(epoch=3, state_dict_ema=state),
    lambda state: dict(ema=dict(module=state), optimizer=dict(
        state={n: dict(exp_avg=v) for n, v in enumerate(state.values())}))]
PREFIXES = [
    '', 'backbone.', 'module.', 'module.backbone.', 'backbone.module.',
    '_orig_mod.module.backbone._orig_mod.', 'model.', 'model.module.backbone.',
    'module.model.backbone.', 'backbone.model.', 'net._orig_mod.',
    '_fsdp_wrapped_module.backbone._checkpoint_wrapped_module.']


@pytest.mark.parametrize('wrap, prefix', [*zip(cycle(WRAPS), PREFIXES)])
def test_prefixes_and_wrappers(prefix, wrap, tiny, tmp_path):
    torch.save(wrap(named(tiny, prefix)), tmp_path / 'file.pth')
    assert equal(load_tiny(tmp_path / 'file.pth'), tiny)


def test_which_of_several(tiny, tmp_path):
    other = FishNet(WIDER)
    torch.save(
        dict(
            state_dict_ema=named(other, ''),
            teacher=resnet18().state_dict(),
            state_dict={**named(tiny, 'student.backbone.'),
                        **named(other, 'teacher.backbone.'),
                        'neck.weight': torch.ones(1)}), tmp_path / 'file.pth')
    for name, model in (('student.', tiny), ('teacher.', other)):
        prefix = name + 'backbone.'
        assert equal(load_tiny(tmp_path / 'file.pth', prefix=prefix), model)
    with pytest.raises(CheckpointError, match=r"below 'student.backbone.' and "
                       r"'teacher.backbone.'. Say which one is meant by "
                       'prefix='):
        load_tiny(tmp_path / 'file.pth')
    torch.save(named(tiny, 'backbone.'), tmp_path / 'file.pth')
    with pytest.raises(CheckpointError, match='holds nothing below '
                       "prefix='teacher.': it holds .* 'backbone.stem.0"):
        load_tiny(tmp_path / 'file.pth', prefix='teacher')


def test_file_of_safetensors(tiny, tmp_path, monkeypatch):
    save_file = pytest.importorskip('safetensors.torch').save_file
    path = tmp_path / 'file.safetensors'
    save_file(named(tiny, 'model.'), path)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert equal(load_tiny('~/file.safetensors'), tiny)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'safetensors.torch', None)
        with pytest.raises(ModuleNotFoundError, match='pip install safetens'):
            load_tiny(path)
    os.truncate(path, 1000)
    with pytest.raises(CheckpointError, match=r'\(1000 bytes\) is damaged'):
        load_tiny(path)


@pytest.mark.parametrize('channels', [1, 2, 4])
def test_other_input_channels(channels, tiny, tmp_path):
    torch.save(tiny.state_dict(), tmp_path / 'file.pth')
    with pytest.raises(CheckpointError, match=r"'backbone.stem.0.weight "
                       rf"\(8, 3, 3, 3\), not \(8, {channels}, 3, 3\)'. With "
                       'adapt_stem=True in init_cfg'):
        load_tiny(tmp_path / 'file.pth', in_channels=channels)
    model = FishNet(
        WIDER,
        in_channels=channels,
        init_cfg=pretrained(tmp_path / 'file.pth', adapt_stem=True))
    model.init_weights()
    # What all channels have alike, the model sees as before.
    grey = torch.rand(1, 1, 64, 64)
    for one, other in zip(
            model.eval()(grey.expand(1, channels, 64, 64)),
            tiny.eval()(grey.expand(1, 3, 64, 64))):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


# Files that must not be loaded ----------------------------------------------


@pytest.fixture(scope='module')
def bad(files, tmp_path_factory):
    """Files that must not be loaded, and what must be said of them."""
    folder = tmp_path_factory.mktemp('bad')
    state = torch.load(files['official'], weights_only=True)['state_dict']
    depth = FishNet(150).state_dict()
    contents = dict(
        resnet=resnet18().state_dict(),
        depth=depth,
        below={f'backbone.{k}': v for k, v in depth.items()},
        deeper=FishNet(201).state_dict(),
        lacks={k: v for k, v in state.items() if '8.1.0.' not in k},
        shape={**state, 'module.conv2.0.weight': torch.zeros(32, 32, 5, 5)},
        empty=dict(epoch=3),
        list=[state])
    for name, content in contents.items():
        torch.save(content, folder / f'{name}.pth')
    for name, source in ('cut_zip', 'mmpretrain'), ('cut_old', 'official'):
        with open(files[source], 'rb') as file:
            start = file.read(os.path.getsize(files[source]) // 2)
        (folder / f'{name}.pth').write_bytes(start)
    return folder


@pytest.fixture(scope='module')
def fish():
    return FishNet(99)


@pytest.mark.parametrize('name, message', [
    ('resnet', 'resnet.pth is not a FishNet checkpoint: it holds 122 tensors, '
     "named 'conv1.weight'"),
    ('depth', r'depth.pth does not fit the model, FishNet-99: it holds \d+ '
     'tensors of FishNet-150'),
    # Nor does a prefix hide another depth.
    ('below', 'tensors of FishNet-150'),
    # It has every name that FishNet-99 wants.
    ('deeper', 'tensors of FishNet-201. .* no place: '
     "'backbone.tail1.refine.2.norm1.weight"),
    ('lacks', 'lacks.pth .* tensors are missing: '
     "'backbone.head2.transfer.0.norm1.weight"),
    ('shape', r"shape.pth .* 'backbone.stem.3.weight \(32, 32, 5, 5\), not "
     r'\(32, 32, 3, 3\)'),
    ('empty', "empty.pth holds no weights; the first of its 1 entries are "
     "'epoch'"),
    ('list', 'list.pth holds no state dict, but a list'),
    ('cut_zip', r'cut_zip.pth \(\d+ bytes\) is damaged or cut short'),
    ('cut_old', r'cut_old.pth \(\d+ bytes\) is damaged or cut short')])
def test_bad_file(name, message, bad, fish):
    before = {k: v.clone() for k, v in fish.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(fish, str(bad / f'{name}.pth'),
                        prefix='backbone.' if name == 'below' else None)
    after = fish.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)
