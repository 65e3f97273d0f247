# Copyright (c) mmfishnet authors. All rights reserved.
"""Stock jobs under MMEngine's runner and under ours; all of them by
``python tests/twins.py``."""
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))
import twins

for package in ('mmdet', 'mmpretrain', 'mmseg'):
    pytest.importorskip(package)


@pytest.mark.slow
@pytest.mark.parametrize('name, classes', [
    ('one-stage', True),  # classes as types, no default scope
    ('VOC', False),  # several processes evaluate
    ('ImageNet', False),
    ('segmentation', False),
])
def test_stock_job(tmp_path, name, classes):
    said = twins.compare(name, str(tmp_path), classes)
    assert said.startswith('equal'), said
