# Copyright (c) mmfishnet authors. All rights reserved.
"""Stock jobs under MMEngine's runner and under ours; all of them by
``python tests/twins.py``."""
from collections import OrderedDict

import pytest
from mmengine.registry import DefaultScope

import twins

for package in ('mmdet', 'mmpretrain', 'mmseg'):
    pytest.importorskip(package)


@pytest.mark.slow
@pytest.mark.parametrize('name, classes', [
    ('VOC', False),  # several processes evaluate
    ('ImageNet', False),
    ('segmentation', False),
    ('one-stage', True),
])
def test_stock_job(tmp_path, monkeypatch, name, classes):
    if classes:  # without the default scope that other runs leave
        monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    said = twins.compare(name, str(tmp_path), classes)
    assert said.startswith('equal'), said
