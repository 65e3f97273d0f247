# Copyright (c) mmfishnet authors. All rights reserved.
import pytest

from mmfishnet.engine.testing import enable_tta, enable_visualization


def test_scopes_without_a_default(detection):
    detection.default_scope = 'mmpose'
    with pytest.raises(ValueError, match='default_hooks.visualization'):
        enable_visualization(detection, True, None, 0)
    detection.default_hooks = dict(visualization=dict(type='Hook'))
    with pytest.raises(ValueError, match='mmpose'):
        enable_visualization(detection, True, None, 0)
    with pytest.raises(ValueError, match='mmpose'):
        enable_tta(detection)


def test_tta_of_the_config_is_used(detection):
    pipeline = [dict(type='LoadImageFromFile')]
    detection.test_dataloader.dataset = dict(
        type='RepeatDataset', dataset=detection.test_dataloader.dataset)
    detection.test_dataloader.dataset.dataset.pipeline = [dict(type='Old')]
    detection.tta_model = dict(type='Mine')
    detection.tta_pipeline = pipeline
    detection.model = dict(type='Detector')
    assert enable_tta(detection) is None
    assert detection.model == dict(type='Mine', module=dict(type='Detector'))
    assert detection.test_dataloader.dataset.dataset.pipeline == pipeline
