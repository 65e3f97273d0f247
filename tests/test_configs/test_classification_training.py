# Copyright (c) mmfishnet authors. All rights reserved.
"""EMA, resuming, mixed precision and fine-tuning."""
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

import mmfishnet  # noqa: F401
from mmfishnet.datasets import CLASSES, draw_classification
from mmfishnet.models.convert import convert

pytest.importorskip('mmpretrain')

CONFIGS = Path(__file__).parents[2] / 'configs' / 'classification'
EPOCH = 3  # iterations

# The config for drawn shapes, without chance in the images: a resumed run
# and an uninterrupted one see the same.
SHAPES = f"""
_base_ = '{CONFIGS}/fishnet_shapes.py'
loader = dict(num_workers=0, batch_size=8)
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(dataset=dict(pipeline=pipeline), **loader)
val_dataloader = loader
test_dataloader = loader
train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(lr=0.025))
param_scheduler = dict(T_max=2, end=2)
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=2))
custom_hooks = [dict(type='EMAHook', momentum=0.25)]
"""


class Recorder(Hook):
    """Keeps the weights after every iteration."""

    def __init__(self):
        self.states = []

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.states.append({
            name: value.detach().double().clone()
            for name, value in runner.model.named_parameters()
        })


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('classification')
    draw_classification(folder / 'data', train=8 * EPOCH, val=12, size=64)
    (folder / 'shapes.py').write_text(SHAPES)
    return folder


@pytest.fixture(scope='module')
def uninterrupted(folder):
    """What the recorder kept of two epochs with EMA."""
    cfg = Config.fromfile(folder / 'shapes.py')
    cfg.work_dir = str(folder / 'whole')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(folder / 'data')
        loader.collate_fn = dict(type='default_collate')
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    recorder = Recorder()
    runner = Runner.from_cfg(cfg)
    runner.register_hook(recorder)
    runner.train()
    return recorder


def test_ema(folder, uninterrupted):
    """What is saved is the moving average, computed again in float64."""
    average = uninterrupted.states[0]
    for i, state in enumerate(uninterrupted.states):
        average = {
            name: 0.75 * average[name] + 0.25 * value
            for name, value in state.items()
        }
        if (i + 1) % EPOCH:
            continue
        saved = torch.load(
            folder / f'whole/epoch_{(i + 1) // EPOCH}.pth',
            weights_only=False)
        for name, value in state.items():
            torch.testing.assert_close(
                saved['state_dict'][name].double(),
                average[name],
                rtol=1e-5,
                atol=1e-6)
            torch.testing.assert_close(
                saved['ema_state_dict'][f'module.{name}'].double(), value)
    weight = 'backbone.tail1.refine.0.conv2.weight'
    assert (average[weight] - state[weight]).abs().max() > 1e-5


def test_resume(folder, uninterrupted, call_tool):
    """A run that goes on after an epoch ends with the same weights."""
    done = call_tool(
        'train', folder / 'shapes.py', '--data-root', folder / 'data',
        '--work-dir', folder / 'rest', '--resume',
        folder / 'whole/epoch_1.pth')
    assert f'resumed epoch: 1, iter: {EPOCH}' in done.stdout + done.stderr
    rest, whole = (
        torch.load(folder / run / 'epoch_2.pth', weights_only=False)
        for run in ('rest', 'whole'))
    assert rest['meta']['iter'] == whole['meta']['iter'] == 2 * EPOCH
    for part in ('state_dict', 'ema_state_dict'):
        assert rest[part].keys() == whole[part].keys()
        for name, value in whole[part].items():
            torch.testing.assert_close(rest[part][name], value)
    group, = rest['optimizer']['param_groups']
    # Half of a cosine of two epochs.
    assert group['lr'] == pytest.approx(0.5 * group['initial_lr'])


def test_inferencer(folder, uninterrupted):
    """MMPretrain's gives what the formulas do."""
    from mmpretrain import ImageClassificationInferencer
    path = sorted((folder / 'data/val').glob('*/*'))[5]
    inferencer = ImageClassificationInferencer(
        str(folder / 'shapes.py'),
        pretrained=str(folder / 'whole/epoch_2.pth'),
        device='cpu')
    result, = inferencer(str(path))

    rgb = torch.tensor(cv2.imread(str(path))[..., ::-1].copy())
    mean = torch.tensor([123.675, 116.28, 103.53])
    std = torch.tensor([58.395, 57.12, 57.375])
    image = ((rgb - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        scores = inferencer.model(image, mode='tensor').softmax(1)[0]
    torch.testing.assert_close(
        torch.tensor(result['pred_scores']), scores, check_dtype=False)
    assert result['pred_label'] == scores.argmax()
    assert result['pred_class'] == CLASSES[result['pred_label']]


def test_mixed_precision(folder):
    """In bfloat16, too, the model learns a few images by heart."""
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(folder / 'shapes.py').model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    images, labels = torch.randn(8, 3, 64, 64), torch.arange(8)
    curve = []
    for _ in range(25):
        with torch.autocast('cpu', torch.bfloat16):
            logits = model(images, mode='tensor')
            loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    assert logits.dtype == torch.bfloat16
    assert curve[0] > 1.5 and max(curve[-3:]) < 0.2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_amp(folder, call_tool):
    done = call_tool(
        'train', folder / 'shapes.py', '--amp', '--data-root', folder / 'data',
        '--work-dir', folder / 'amp')
    found = re.findall(r'Epoch\(train\).* loss: (\S+)', done.stdout)
    assert found and np.isfinite([float(loss) for loss in found]).all()
    saved = torch.load(folder / 'amp/epoch_2.pth', weights_only=False)
    assert 'loss_scaler' in saved['optimizer']


def test_finetune(folder, call_tool):
    """From a file of the authors' format to a classifier of other classes."""
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(
        Config.fromfile(CONFIGS / 'fishnet99_8xb32_in1k.py').model)
    state = model.state_dict()
    torch.save(
        dict(state_dict=convert(state, 'official')), folder / 'theirs.tar')
    call_tool('convert_checkpoint', folder / 'theirs.tar', folder / 'ours.pth')

    weights = f'init_cfg.checkpoint={folder}/ours.pth'
    crop = 'val_dataloader.dataset.pipeline'
    done = call_tool(
        'train', CONFIGS / 'finetune_custom.py', '--data-root',
        folder / 'data', '--work-dir', folder / 'finetuned', '--cfg-options',
        'model.backbone.depth=99', f'model.backbone.{weights}',
        f'model.neck.{weights}', 'model.head.num_classes=12',
        'data_preprocessor.num_classes=12', 'train_dataloader.batch_size=8',
        'train_dataloader.num_workers=0',
        'train_dataloader.dataset.pipeline.1.scale=32',
        'val_dataloader.num_workers=0', f'{crop}.1.scale=32',
        f'{crop}.2.crop_size=32', 'train_cfg.max_epochs=1',
        # So that the weights can be compared.
        'optim_wrapper.optimizer.lr=0.0')
    assert 'accuracy/top1' in done.stdout + done.stderr
    saved = torch.load(
        folder / 'finetuned/epoch_1.pth', weights_only=False)['state_dict']
    assert saved.keys() == state.keys()
    for name, parameter in model.named_parameters():
        if name.startswith('head'):
            assert len(saved[name]) == 12
        else:
            assert torch.equal(saved[name], parameter), name
