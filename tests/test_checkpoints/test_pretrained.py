# Copyright (c) mmfishnet authors. All rights reserved.
from pathlib import Path

import pytest
from mmengine.config import ConfigDict
from mmengine.model import PretrainedInit

from mmfishnet.checkpoints import drop_pretrained, require_pretrained


def pretrained(checkpoint, type='Pretrained'):
    return dict(type=type, checkpoint=str(checkpoint))


def test_missing_file_is_named_with_all_ways_out(tmp_path, monkeypatch):
    """Where it was looked for: from the current folder."""
    monkeypatch.chdir(tmp_path)
    missing = Path('fishnet150_in1k.pth')
    model = ConfigDict(
        backbone=dict(init_cfg=pretrained(missing)),
        neck=dict(init_cfg=[dict(type='Xavier'), pretrained(missing)]))
    with pytest.raises(FileNotFoundError) as error:
        require_pretrained(model)
    for part in (str(tmp_path / missing), 'get_weights.py fishnet150',
                 '`--cfg-options model.backbone.init_cfg.checkpoint=FILE '
                 'model.neck.init_cfg.1.checkpoint=FILE`', '--from-scratch',
                 '`--cfg-options model.backbone.init_cfg=None '
                 'model.neck.init_cfg=None`'):
        assert part in str(error.value)
    missing.touch()
    require_pretrained(model)


@pytest.mark.parametrize('checkpoint', [
    'https://host/resnet50.pth', 'torchvision://resnet50', 's3://bucket/a.pth',
    'cluster:s3://bucket/a.pth', 'open-mmlab://resnet50', 'mmcls://vgg16'
])
def test_urls_are_left_alone(checkpoint):
    require_pretrained(dict(init_cfg=pretrained(checkpoint)))


@pytest.mark.parametrize('type', [
    'Pretrained', 'mmengine.Pretrained', PretrainedInit
])
def test_found_at_any_depth_and_dropped(tmp_path, type):
    there = tmp_path / 'there.pth'
    there.touch()
    kaiming = dict(type='Kaiming', layer='Conv2d')
    model = ConfigDict(
        init_cfg=pretrained(there),
        detector=dict(
            backbones=[
                dict(init_cfg=[kaiming,
                               pretrained(tmp_path / 'a.pth', type)])
            ]),
        neck=dict(init_cfg=kaiming))
    with pytest.raises(FileNotFoundError, match=r'a\.pth'):
        require_pretrained(model)

    assert drop_pretrained(
        model, only_missing=True) == [str(tmp_path / 'a.pth')]
    assert model.detector.backbones[0].init_cfg == [kaiming]
    assert model.init_cfg == pretrained(there)
    require_pretrained(model)

    assert drop_pretrained(model) == [str(there)]
    assert model.init_cfg is None
    assert model.neck.init_cfg == kaiming
