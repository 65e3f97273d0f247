# Copyright (c) mmfishnet authors. All rights reserved.
"""The ImageNet configs, value by value against section 4.1 of the paper."""
import copy
import logging
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import nn

import mmfishnet  # noqa: F401
from mmfishnet.datasets.scenes import draw_scene
from mmfishnet.engine.data_root import set_data_root

pytest.importorskip('mmpretrain')

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs' / 'classification'

# The parameters are the authors' for FishNet; DESIGN.md's rule gives those of
# FishNeXt; torchvision's ResNeXt-50 32x4d and DenseNet-161 have those below;
# the pre-activation ResNets' are counted in tests/test_models.
STEP = {
    'fishnet99_8xb32_in1k': 16_628_904,
    'fishnet150_8xb32_in1k': 24_959_400,
    'fishnet201_8xb32_in1k': 44_584_552,
    'fishnext150_8xb32_in1k': 25_738_024,
    'preact-resnet50_8xb32_in1k': 25_553_192,
    'preact-resnet101_8xb32_in1k': 44_545_320,
    'resnext50-32x4d_8xb32_in1k': 25_028_904,
    'densenet161_8xb32_in1k': 28_681_000,
}
COSINE = {
    'fishnet150_8xb32-coslr-200e_in1k': 24_959_400,
    'fishnet201_8xb32-coslr-200e_in1k': 44_584_552,
}
PARAMETERS = {**STEP, **COSINE}

# ImageNet's mean and std per channel, RGB in [0, 1].
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])

# The principal components of its pixels, as PyTorch's examples write them:
# rows are R, G, B in [0, 1].
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009],
                         [-0.5808, -0.0045, -0.8140],
                         [-0.5836, -0.6948, 0.4203]])


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory):
    """A folder laid out as MMPretrain's ImageNet, with a few pictures."""
    root = tmp_path_factory.mktemp('imagenet')
    rng = np.random.default_rng(0)
    (root / 'meta').mkdir()
    for split, number in (('train', 8), ('val', 4)):
        (root / split).mkdir()
        lines = []
        for i in range(number):
            image = draw_scene(rng, [i, i + 1], 400, (0.3, 0.9)).image[50:350]
            cv2.imwrite(str(root / split / f'{i}.png'), image)
            lines.append(f'{i}.png {i * 100}\n')
        (root / 'meta' / f'{split}.txt').write_text(''.join(lines))
    return root


def load(name, imagenet):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    set_data_root(cfg, str(imagenet))
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.setdefault('collate_fn', dict(type='default_collate'))
    # As the runner does; a copy, since building a model completes it.
    cfg.model.data_preprocessor = copy.deepcopy(cfg.data_preprocessor)
    init_default_scope('mmpretrain')
    return cfg


@pytest.fixture(scope='module', params=PARAMETERS)
def built(request, imagenet):
    """Name, config and model of each config, without values where MMPretrain
    can build it so."""
    cfg = load(request.param, imagenet)
    with torch.device('cpu' if 'resnext' in request.param else 'meta'):
        return request.param, cfg, MODELS.build(cfg.model)


@pytest.fixture(scope='module')
def runner(imagenet, tmp_path_factory):
    """The runner of FishNet-150, ready to train."""
    cfg = load('fishnet150_8xb32_in1k', imagenet)
    cfg.work_dir = str(tmp_path_factory.mktemp('work'))
    cfg.log_level = logging.ERROR
    runner = Runner.from_cfg(cfg)
    runner._train_loop = runner.build_train_loop(cfg.train_cfg)
    runner._val_loop = runner.build_val_loop(cfg.val_cfg)
    return runner


def train_parts(runner, cfg, model):
    """The optimizer and the schedulers that ``runner.train`` builds."""
    runner.train_loop._max_epochs = cfg.train_cfg.max_epochs
    wrapper = Runner.build_optim_wrapper(
        type('Owner', (), dict(model=model)), cfg.optim_wrapper)
    runner.optim_wrapper = wrapper
    return wrapper, runner.build_param_scheduler(cfg.param_scheduler)


def test_recipe(built, runner):
    name, cfg, model = built
    wrapper, schedulers = train_parts(runner, cfg, model)

    optimizer = wrapper.optimizer
    assert type(optimizer) is torch.optim.SGD
    assert wrapper.clip_grad_kwargs is None
    assert sum(p.numel() for group in optimizer.param_groups
               for p in group['params']) == sum(p.numel()
                                                for p in model.parameters())
    for group in optimizer.param_groups:
        assert group['momentum'] == 0.9
        assert group['weight_decay'] == 1e-4
        assert not group['nesterov']
        assert group['dampening'] == 0

    epochs = cfg.train_cfg.max_epochs
    assert epochs == (200 if name in COSINE else 100)
    for epoch in range(epochs):
        expected = (0.1 * (1 + math.cos(math.pi * epoch / 200)) / 2
                    if name in COSINE else 0.1 * 0.1**(epoch // 30))
        for group in optimizer.param_groups:
            assert group['lr'] == pytest.approx(expected, rel=1e-9), epoch
        for scheduler in schedulers:
            assert scheduler.by_epoch
            scheduler.step()

    # 256 images in a step, of 8 GPUs.
    assert '8xb32' in name
    assert cfg.train_dataloader.batch_size == 32
    assert cfg.auto_scale_lr.base_batch_size == 256
    assert cfg.train_dataloader.sampler.shuffle
    assert not cfg.val_dataloader.sampler.shuffle
    # All are trained and tested on exactly what the next tests examine.
    for key in ('train_dataloader', 'val_dataloader', 'val_evaluator',
                'test_evaluator', 'data_preprocessor'):
        assert cfg[key] == runner.cfg[key], key
    assert cfg.val_dataloader.dataset == cfg.test_dataloader.dataset
    assert cfg.val_evaluator.type == cfg.test_evaluator.type == 'Accuracy'
    assert cfg.val_evaluator.topk == cfg.test_evaluator.topk == (1, 5)


def test_model(built):
    name, _, model = built
    count = sum(p.numel() for p in model.parameters())
    assert count == PARAMETERS[name]
    documented = (ROOT / 'docs/classification.md').read_text()
    assert f'| `{name}.py` | {count / 1e6:.2f} M |' in documented
    images = torch.rand(2, 3, 64, 64).to(next(model.parameters()).device)
    logits = model.train()(images, mode='tensor')
    assert logits.shape == (2, 1000)
    logits.sum().backward()
    # Nothing is built that DistributedDataParallel would wait for in vain.
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize('name', [
    'fishnet150_8xb32-coslr-200e_in1k', 'preact-resnet50_8xb32_in1k'
])
def test_training_step(name, imagenet):
    """Images from the data set go through a step of the optimizer."""
    cfg = load(name, imagenet)
    cfg.train_dataloader.dataset.pipeline[1].scale = 64
    cfg.train_dataloader.batch_size = 4
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)  # as PyTorch initialises it
    data = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    wrapper = Runner.build_optim_wrapper(
        type('Owner', (), dict(model=model)), cfg.optim_wrapper)
    before = [p.detach().clone() for p in model.parameters()]

    images = model.data_preprocessor(data, True)['inputs']
    logits = model(images, mode='tensor')
    labels = torch.cat([sample.gt_label for sample in data['data_samples']])
    target = nn.functional.one_hot(labels, 1000).double()
    if name in COSINE:
        target = 0.9 * target + 0.1 / 1000
    log_prob = logits.double().log_softmax(1)
    expected = -(target * log_prob).sum(1).mean()

    log_vars = model.train_step(data, wrapper)
    assert log_vars['loss'].item() == pytest.approx(
        expected.item(), rel=1e-4)
    changed = [not torch.equal(a, b) for a, b in
               zip(before, model.parameters())]
    assert all(changed)


# The images ------------------------------------------------------------------


def test_augmentation(runner):
    steps = runner.train_loop.dataloader.dataset.pipeline.transforms
    assert [type(step).__name__ for step in steps] == [
        'LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip', 'Lighting',
        'PackInputs'
    ]
    _, crop, flip, _, _ = steps
    # 8 to 100 % of the area, and a logarithm of the aspect that is symmetric.
    assert crop.crop_ratio_range == (0.08, 1.0)
    assert crop.aspect_ratio_range == (3 / 4, 4 / 3)
    # Every second image, left to right.
    image = np.random.randint(256, size=(300, 400, 3), dtype=np.uint8)
    cropped = crop(dict(img=image))['img']
    assert cropped.shape == (224, 224, 3)
    flipped = []
    for _ in range(100):
        out = flip(dict(img=cropped))['img']
        flipped.append(np.array_equal(out, cropped[:, ::-1]))
        assert flipped[-1] or np.array_equal(out, cropped)
    assert 30 < sum(flipped) < 70


def test_lighting_and_normalisation(runner):
    """What the network sees, computed again in NumPy."""
    dataset = runner.train_loop.dataloader.dataset
    load_image, crop, flip, lighting, pack = dataset.pipeline.transforms
    np.random.seed(3)
    results = flip(crop(load_image(dataset.get_data_info(0))))
    # Saturated pixels, where integers would wrap around.
    results['img'][:40] = 0
    results['img'][40:80] = 255
    rgb = results['img'][..., ::-1].astype(np.float64) / 255

    drawn = set()
    for seed in range(8):
        alpha = np.random.RandomState(seed).normal(0, 0.1, 3)
        light = EIGENVECTORS @ (alpha * EIGENVALUES)
        expected = (rgb + light - MEAN) / STD

        np.random.seed(seed)
        data = pack(lighting(dict(results, img=results['img'].copy())))
        batch = dict(
            inputs=data['inputs'][None], data_samples=[data['data_samples']])
        seen = runner.model.data_preprocessor(batch, True)['inputs'][0]
        np.testing.assert_allclose(
            seen.numpy().transpose(1, 2, 0), expected, atol=2e-4)
        drawn.update(np.sign(light))
    # Both brighter and darker than white and black occurred.
    assert drawn == {-1, 1}


def test_single_crop_test(runner):
    """Shorter side to 256, the 224 x 224 in the middle."""
    dataset = runner.val_loop.dataloader.dataset
    assert [type(step).__name__ for step in dataset.pipeline.transforms] == [
        'LoadImageFromFile', 'ResizeEdge', 'CenterCrop', 'PackInputs'
    ]
    data = dataset[1]
    image = cv2.imread(dataset.get_data_info(1)['img_path'])
    assert image.shape == (300, 400, 3)
    resized = cv2.resize(image, (round(400 * 256 / 300), 256))
    left = round((resized.shape[1] - 224) / 2)
    rgb = resized[16:240, left:left + 224, ::-1] / 255
    batch = dict(
        inputs=data['inputs'][None], data_samples=[data['data_samples']])
    seen = runner.model.data_preprocessor(batch)['inputs'][0]
    np.testing.assert_allclose(
        seen.numpy().transpose(1, 2, 0), (rgb - MEAN) / STD, atol=1e-4)
