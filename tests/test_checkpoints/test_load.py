# Copyright (c) mmfishnet authors. All rights reserved.
import copy
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint
from torchvision.models import resnet18

from mmfishnet.checkpoints import CheckpointError, load_weights
from mmfishnet.models import FishNet

from .conftest import build_classifier, randomize

FORMATS = ('official', 'pytorchcv', 'mmpretrain')


@pytest.fixture(autouse=True)
def quiet():
    """MMEngine logs a line for each weight that it initialises."""
    MMLogger.get_current_instance().setLevel('ERROR')


def pretrained(path, **options):
    return dict(type='Pretrained', checkpoint=path, **options)


def holds(module, files, prefix=''):
    """Whether a module has the weights of the files, counters aside."""
    wanted = torch.load(files['mmpretrain'])['state_dict']
    own = {
        prefix + k: v
        for k, v in module.state_dict().items() if 'num_batches' not in k
    }
    return all(torch.equal(v, wanted[k]) for k, v in own.items())


@pytest.mark.parametrize('depth', [99, 150])
@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-5),
                                              (torch.float64, 1e-12)])
@torch.no_grad()
def test_logits_equal_the_original(depth, dtype, tolerance, tmp_path):
    fishnet = pytest.importorskip('pytorchcv.models.fishnet')
    torch.manual_seed(depth)
    theirs = getattr(fishnet, f'fishnet{depth}')()
    theirs = randomize(theirs.to(dtype)).eval()
    torch.save(theirs.state_dict(), tmp_path / 'file.pth')
    ours = build_classifier(depth).to(dtype).eval()
    load_weights(ours, str(tmp_path / 'file.pth'))
    # Theirs pools 7x7, the size of the last feature of 224x224.
    theirs.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    images = torch.randn(2, 3, 64, 96, dtype=dtype)
    for a, b in ((ours(images), theirs(images)),
                 (ours.extract_feat(images)[0],
                  theirs.features(images).flatten(1))):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize('name', [*FORMATS, 'mmdet'])
def test_init_cfg_of_a_backbone(name, files):
    model = FishNet(
        99, frozen_stages=0, norm_cfg=dict(type='BN', requires_grad=False),
        init_cfg=pretrained(files[name]))
    model.init_weights()
    assert holds(model, files, 'backbone.')


@pytest.mark.parametrize('name', ['official', 'mmdet'])
def test_init_cfg_with_prefix(name, files):
    """Without the last stage's output, beside other initialisers."""
    model = FishNet(
        99, out_indices=(0, 1, 2), init_cfg=[
            dict(type='Kaiming', layer='Conv2d'),
            pretrained(files[name], prefix='backbone.')])
    model.init_weights()
    assert holds(model, files, 'backbone.')


@pytest.mark.parametrize('name', FORMATS)
def test_init_cfg_of_a_classifier(name, files):
    model = build_classifier(99, init_cfg=pretrained(files[name]))
    model.init_weights()
    assert holds(model, files)


@pytest.mark.parametrize('name', FORMATS)
def test_load_checkpoint_of_mmengine(name, files):
    model = build_classifier(99)
    load_checkpoint(model, files[name])
    assert holds(model, files)


def test_init_cfg_of_a_url(files, tmp_path, monkeypatch):
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
    assert os.listdir(tmp_path / 'hub/checkpoints') == [name]


def test_detector_takes_the_backbone_alone(files):
    pytest.importorskip('mmdet')
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from .conftest import ROOT
    init_default_scope('mmdet')
    cfg = Config.fromfile(ROOT / 'configs/mask_rcnn_fishnet150_fpn.py')
    cfg.model.backbone.update(depth=99, init_cfg=None)
    model = MODELS.build(cfg.model)
    head = copy.deepcopy(model.roi_head.state_dict())
    load_weights(model, files['official'])
    assert holds(model.backbone, files, 'backbone.')
    assert all(
        torch.equal(v, head[k])
        for k, v in model.roi_head.state_dict().items())


def test_torch_alone(files):
    model = FishNet(99)
    content = torch.load(files['official'], weights_only=True)['state_dict']
    missing = model.load_state_dict(content)
    assert not missing.missing_keys and not missing.unexpected_keys
    assert holds(model, files, 'backbone.')
    before = copy.deepcopy(content)
    model.load_state_dict(content)
    assert before.keys() == content.keys()


def test_other_number_of_classes(files, caplog):
    logger = MMLogger.get_current_instance()
    logger.setLevel('INFO')
    logger.addHandler(caplog.handler)
    model = build_classifier(99, head=dict(num_classes=10))
    head = model.head.fc.weight.clone()
    load_weights(model, files['official'])
    assert holds(model.backbone, files, 'backbone.')
    assert holds(model.neck, files, 'neck.')
    assert torch.equal(model.head.fc.weight, head)
    logger.removeHandler(caplog.handler)
    assert 'classifier, of 1000 classes, is left out' in caplog.text


@pytest.fixture(scope='module')
def bad(files, tmp_path_factory):
    """Files that must not be loaded, and what must be said of them."""
    folder = tmp_path_factory.mktemp('bad')
    state = torch.load(files['official'], weights_only=True)['state_dict']
    contents = dict(
        resnet=resnet18().state_dict(),
        depth=FishNet(150).state_dict(),
        lacks={k: v for k, v in state.items() if '8.1.0.' not in k},
        shape={**state, 'module.conv2.0.weight': torch.zeros(32, 32, 5, 5)})
    for name, content in contents.items():
        torch.save(content, folder / f'{name}.pth')
    for name, source in ('cut_zip', 'mmpretrain'), ('cut_old', 'official'):
        with open(files[source], 'rb') as file:
            start = file.read(os.path.getsize(files[source]) // 2)
        (folder / f'{name}.pth').write_bytes(start)
    return folder


BAD = pytest.mark.parametrize('name, message', [
    ('resnet', 'resnet.pth is not a FishNet checkpoint: it holds 122 tensors, '
     'named conv1.weight'),
    ('depth', 'depth.pth does not fit the model, FishNet-99: it holds '
     'FishNet-150'),
    ('lacks', 'lacks.pth .* tensors are missing: '
     'backbone.head2.transfer.0.norm1.weight'),
    ('shape', r'shape.pth .* backbone.stem.3.weight \(32, 32, 5, 5\), not '
     r'\(32, 32, 3, 3\)'),
    ('cut_zip', r'cut_zip.pth \(\d+ bytes\) is damaged or cut short'),
    ('cut_old', r'cut_old.pth \(\d+ bytes\) is damaged or cut short'),
])


@BAD
def test_bad_file_for_a_backbone(name, message, bad):
    model = FishNet(99, init_cfg=pretrained(str(bad / f'{name}.pth')))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=message):
        load_weights(model, str(bad / f'{name}.pth'))
    after = model.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)
    with pytest.raises(CheckpointError, match=message):
        model.init_weights()


@BAD
def test_bad_file_for_a_classifier(name, message, bad):
    model = build_classifier(99)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, str(bad / f'{name}.pth'))
    after = model.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)


def test_deeper_file_is_not_half_loaded():
    """FishNet-201 has every name that FishNet-150 wants."""
    state = FishNet(201).state_dict()
    model = FishNet(150, init_cfg=pretrained('unused', prefix='backbone.'))
    model._params_init_info = {}  # as in init_weights
    with pytest.raises(CheckpointError, match='it holds FishNet-201. .* no '
                       'place: backbone.tail1.refine.2.norm1.weight'):
        model.load_state_dict(state, strict=False)


def test_prefix_does_not_hide_another_depth(bad, tmp_path):
    state = torch.load(bad / 'depth.pth')
    torch.save({f'backbone.{k}': v for k, v in state.items()},
               tmp_path / 'file.pth')
    model = FishNet(99, init_cfg=pretrained(
        str(tmp_path / 'file.pth'), prefix='backbone.'))
    with pytest.raises(CheckpointError, match='it holds FishNet-150'):
        model.init_weights()


def test_backbone_alone_is_no_classifier(files):
    model = build_classifier(99)
    for load in load_weights, load_checkpoint:
        with pytest.raises(CheckpointError, match='holds a backbone alone, '
                           'without the score layers'):
            load(model, files['mmdet'])


def test_other_models_load_as_ever(tmp_path):
    model = resnet18()
    torch.save(model.state_dict(), tmp_path / 'file.pth')
    other = resnet18()
    load_checkpoint(other, str(tmp_path / 'file.pth'), strict=True)
    assert torch.equal(other.conv1.weight, model.conv1.weight)


def test_no_fishnet_in_the_model(files):
    with pytest.raises(TypeError, match='ResNet is not a FishNet, and has'):
        load_weights(resnet18(), files['official'])
