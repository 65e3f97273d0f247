# Copyright (c) mmfishnet authors. All rights reserved.
"""Stock jobs under MMEngine's runner and under ours; all of them by
``python tests/twins.py``."""
import subprocess
import sys

import pytest

import twins

for package in ('mmdet', 'mmpretrain', 'mmseg'):
    pytest.importorskip(package)


@pytest.mark.slow
@pytest.mark.parametrize('name', [
    'VOC',  # several processes evaluate
    'ImageNet',
    'segmentation',
])
def test_stock_job(tmp_path, name):
    said = twins.compare(name, str(tmp_path))
    assert said.startswith('equal'), said


@pytest.mark.slow
def test_classes_as_types():
    """In a process without the default scope that other tests leave."""
    done = subprocess.run(
        [sys.executable, twins.__file__, '--classes', 'one-stage'],
        capture_output=True, text=True)
    assert 'one-stage: equal' in done.stdout, done.stdout + done.stderr
