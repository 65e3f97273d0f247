# Copyright (c) mmfishnet authors. All rights reserved.
"""Class activation maps by MMPretrain's own tool, as docs/ tells to."""
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.utils import get_installed_path

import mmfishnet  # noqa: F401
from mmfishnet.datasets.scenes import draw_scene

pytest.importorskip('mmpretrain')
pytest.importorskip('pytorch_grad_cam')

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/classification/fishnet_shapes.py'


def test_map_of_the_most_likely_class(run_script, tmp_path):
    """What is drawn is the class's weights times what is averaged.

    With a linear classifier on averaged features, the map is known in closed
    form: only its sign and its scale are the tool's choice.
    """
    image = draw_scene(np.random.default_rng(0), [4], 160, (0.6, 0.7)).image
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    cfg = Config.fromfile(CONFIG)
    # As large as it is: of the config's 64x64 pixels 2x2 positions are left.
    cfg.test_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    cfg.dump(tmp_path / 'config.py')
    model = MODELS.build(cfg.model).eval()
    # Without biases the likeliest class has a positive map somewhere.
    torch.nn.init.normal_(model.head.fc.weight)
    torch.nn.init.zeros_(model.head.fc.bias)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')

    tool = Path(get_installed_path('mmpretrain'),
                '.mim/tools/visualization/vis_cam.py')
    assert run_script(
        tool, tmp_path / 'image.png', tmp_path / 'config.py',
        tmp_path / 'model.pth', '--target-layers', 'neck.layers.4',
        '--save-path', tmp_path / 'cam.png') == 0
    drawn = cv2.imread(str(tmp_path / 'cam.png'))

    norm = cfg.data_preprocessor
    rgb = (image[..., ::-1] - np.array(norm.mean)) / np.array(norm.std)
    feats = model.backbone(
        torch.from_numpy(rgb.transpose(2, 0, 1)).float()[None])
    feats = model.neck.layers[:5](feats[-1])[0]
    assert feats.shape[1:] == (5, 5)
    weight = model.head.fc.weight
    scores = weight @ feats.mean((1, 2))
    cam = torch.einsum('c,chw->hw', weight[scores.argmax()], feats).relu()
    cam = (cam - cam.min()).detach().numpy()
    assert cam.max() > 0
    cam = cv2.resize(cam / cam.max(), (160, 160))
    heat = cv2.applyColorMap((255 * cam).astype(np.uint8), cv2.COLORMAP_JET)
    mixed = heat / 255 + image / 255
    expected = 255 * mixed / mixed.max()
    # One step of the colour map, where the two round differently.
    assert np.abs(drawn - expected).max() < 6
