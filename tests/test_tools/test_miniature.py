# Copyright (c) mmfishnet authors. All rights reserved.
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import miniature
import mmfishnet  # noqa: F401

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')

ROOT = Path(__file__).parents[2]
STUDY = dict(
    seeds=[0, 1, 2],
    minutes=83.2,
    results=dict(
        fishnet=dict(
            top1=[90.0, 92.0, 94.0],
            box_ap=[20.0, 21.0, 22.0],
            mask_ap=[18.0, 18.0, 18.0]),
        resnet=dict(
            top1=[91.0, 91.0, 91.0],
            box_ap=[18.0, 20.0, 19.0],
            mask_ap=[19.0, 18.0, 17.0])))


def test_report(tmp_path):
    """Means and sample standard deviations, by hand."""
    top1, box, mask = miniature.compare(STUDY)
    assert miniature.format_spread(top1.fishnet) == '92.0 ± 2.0'
    assert miniature.format_spread(box.differences, sign=True) == '+2.0 ± 1.0'
    assert miniature.format_spread(mask.differences,
                                   sign=True) == '+0.0 ± 1.0'
    assert miniature.format_spread([41.25], sign=True) == '+41.2'
    # Table 3: 'vs. ResNet-50', and Figure 4: 21.93 and 23.78 % error.
    assert box.paper_difference == pytest.approx(2.8)
    assert mask.paper_difference == pytest.approx(2.3)
    assert top1.paper_difference == pytest.approx(23.78 - 21.93)

    text = miniature.write_report(STUDY, tmp_path).read_text()
    assert ('| Box AP | 21.0 ± 1.0 | 19.0 ± 1.0 | +2.0 ± 1.0 | 41.5 | 38.7 '
            '| +2.8 |') in text
    assert '| 2 | FishNet | 94.0 | 22.0 | 18.0 |' in text
    assert '83 minutes' in text
    picture = cv2.imread(str(tmp_path / 'report.png'))
    # Both networks' colours are on it.
    for bgr in ((180, 119, 31), (14, 127, 255)):
        assert (np.abs(picture - np.array(bgr)).max(2) < 3).sum() > 50


def test_networks_are_alike():
    """Equal parameters, and in the detector everything else is equal."""
    counts, configs = [], []
    for network in ('fishnet', 'resnet'):
        cfg = Config.fromfile(ROOT / f'configs/miniature/cls_{network}.py')
        init_default_scope('mmpretrain')
        with torch.device('meta'):
            model = MODELS.build(cfg.model)
        counts.append(sum(p.numel() for p in model.parameters()))
        cfg = Config.fromfile(
            ROOT / f'configs/miniature/mask_rcnn_{network}.py').to_dict()
        backbone = cfg['model'].pop('backbone')
        cfg['model']['neck'].pop('in_channels')
        configs.append(json.dumps(cfg))
        # Section 4.4
        assert backbone['norm_cfg'] == dict(type='BN', requires_grad=False)
        assert backbone['norm_eval']
        assert backbone['frozen_stages'] == 0
    assert counts == [604_380, 604_316]
    assert configs[0] == configs[1]


def weights(folder):
    path = (folder / 'last_checkpoint').read_text()
    return torch.load(path, weights_only=False)['state_dict']


@pytest.mark.slow
def test_study(run_tool, call_tool, tmp_path):
    """From drawing to the report, for one seed."""
    command = ('analysis_tools/miniature', '--quick', '--work-dir',
               tmp_path, '--seeds', '5')
    done = run_tool(*command)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert 'cls_resnet_5: Epoch(train)' in done.stdout
    text = (tmp_path / 'report.md').read_text()
    assert text in done.stdout
    for network, title in (('fishnet', 'FishNet'), ('resnet', 'ResNet')):
        runs = [tmp_path / f'{task}_{network}_5'
                for task in ('cls', 'mask_rcnn')]
        found = {}
        for run in runs:
            found.update(json.loads((run / 'metrics.json').read_text()))
        row = [f'{found[key] * factor:.1f}'
               for _, key, factor, _ in miniature.METRICS.values()]
        assert f'| 5 | {title} | {" | ".join(row)} |' in text

        # The detector began with the classifier's weights; the stem and all
        # batch norms still have them, the convolutions were trained.
        classifier, detector = map(weights, runs)
        kept = [key for key in detector if key.startswith('backbone.')]
        assert len(kept) > 100
        for key in kept:
            fixed = detector[key].dim() < 2 or 'backbone.stem' in key
            # The gate's and the bridge's convolutions have biases.
            if key.endswith('bias') and f'{key[:-4]}running_mean' not in kept:
                fixed = False
            assert torch.equal(classifier[key], detector[key]) is fixed, key

    # Nothing is done twice; what is missing goes on.
    (tmp_path / 'mask_rcnn_resnet_5' / 'result.json').unlink()
    done = call_tool(*command)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert 'Epoch(train)' not in done.stdout
    assert 'mask_rcnn_resnet_5: Epoch(test)' in done.stdout
    assert (tmp_path / 'report.md').read_text().splitlines()[:-2] == \
        text.splitlines()[:-2]

    with pytest.raises(ValueError, match='other settings .scale.'):
        miniature.Study(tmp_path, scale=miniature.FULL).run()
