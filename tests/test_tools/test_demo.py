# Copyright (c) mmfishnet authors. All rights reserved.
import json
import re
from importlib.util import find_spec

import cv2
import pytest


@pytest.mark.slow
def test_demo_leaves_its_results_in_one_folder(run_tool, tmp_path):
    # One process: what two do is seen in other tests, each costs seconds.
    levels = ['--levels'] * bool(find_spec('mmseg'))
    done = run_tool('demo', '--quick', '--gpus', '1', '--work-dir',
                    tmp_path / 'work', '--data-dir', tmp_path / 'data',
                    *levels)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.rstrip().endswith(str(tmp_path / 'work'))
    # The twelve COCO numbers, for boxes and for masks.
    assert len(re.findall(r'Average (Precision|Recall)', done.stdout)) >= 24
    results = [
        json.loads(path.read_text())
        for path in (tmp_path / 'work').glob('2*/2*.json')
    ]
    assert any('coco/segm_mAP' in result for result in results)
    for name in ('predictions.png', 'loss.png', 'ap.png',
                 *['levels.jpg'] * len(levels)):
        image = cv2.imread(str(tmp_path / 'work' / name))
        assert image.std() > 5, f'{name} shows nothing'
