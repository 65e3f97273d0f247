# Copyright (c) mmfishnet authors. All rights reserved.
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmfishnet.models.convert import convert

ROOT = Path(__file__).parents[2]


def randomize(model: nn.Module) -> nn.Module:
    """Give every norm and bias a value that is not its initial one."""
    generator = torch.Generator().manual_seed(0)

    def noise(like):
        return torch.rand(like.shape, generator=generator, dtype=like.dtype)

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(noise(module.running_mean) - 0.5)
            module.running_var.copy_(noise(module.running_var) + 0.5)
            module.num_batches_tracked.fill_(7)
            module.weight.data.copy_(noise(module.weight) + 0.5)
            module.bias.data.copy_(noise(module.bias) - 0.5)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.data.copy_(noise(module.bias) - 0.5)
    return model


def build_classifier(depth: int, **options) -> nn.Module:
    """The model of configs/classification/fishnet*_8xb32_in1k.py."""
    pytest.importorskip('mmpretrain')
    from mmpretrain.registry import MODELS
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(
        ROOT / f'configs/classification/fishnet{depth}_8xb32_in1k.py')
    cfg.merge_from_dict(dict(model=options))
    return MODELS.build(cfg.model)


def official_entries(depth: int) -> dict:
    """Names and shapes of the authors' released weights."""
    path = ROOT.parent / f'shared/reference/official_fishnet{depth}' \
        '_state_dict.json'
    if not path.exists():
        pytest.skip(f'{path}, names of the released weights, is not there')
    return dict(json.loads(path.read_text())['entries'])


@pytest.fixture(scope='session')
def reference():
    """An independent FishNet-99."""
    fishnet = pytest.importorskip('pytorchcv.models.fishnet')
    torch.manual_seed(0)
    return randomize(fishnet.fishnet99()).eval()


@pytest.fixture(scope='session')
def files(reference, tmp_path_factory):
    """The weights of the reference, in files of every format."""
    folder = tmp_path_factory.mktemp('checkpoints')
    official = convert(reference.state_dict(), 'official')
    contents = dict(
        pytorchcv=reference.state_dict(),
        # Of torch 0.4, trained with DataParallel: no counters, "module.".
        official=dict(
            epoch=100,
            arch='fishnet99',
            best_prec1=torch.tensor(77.41),
            optimizer=dict(state={}, param_groups=[]),
            state_dict={
                f'module.{k}': v
                for k, v in official.items() if 'num_batches' not in k
            }),
        mmpretrain=dict(meta={}, state_dict=convert(official, 'mmpretrain')),
        mmdet=dict(meta={}, state_dict=convert(official, 'mmdet')))
    paths = {name: folder / f'{name}.pth' for name in contents}
    for name, content in contents.items():
        torch.save(
            content,
            paths[name],
            _use_new_zipfile_serialization=name != 'official')
    return {name: str(path) for name, path in paths.items()}
