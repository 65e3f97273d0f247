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
    lines = done.stdout.splitlines()
    assert lines[-1].endswith(str(tmp_path / 'work'))
    count = 6 if levels else 4
    stages = [line for line in lines if line.startswith('[')]
    assert [line[:6] for line in stages] == [
        f'[{number}/{count}] ' for number in range(1, count + 1)]
    assert len(lines) <= 2 * count + 2 and not done.stderr
    log = (tmp_path / 'work/demo.log').read_text()
    # The twelve COCO numbers, for boxes and for masks, and what is shown
    assert len(re.findall(r'Average (Precision|Recall)', log)) >= 48
    shown = re.findall(r'box AP ([\d.]+), mask AP ([\d.]+)', done.stdout)
    assert len(shown) == 2 and shown[0] == shown[1]
    # What upstream says at every start, and nobody can do anything about
    for noise in ('OneDL', 'deprecated', 'UserWarning', 'FutureWarning'):
        assert noise not in log
    results = [
        json.loads(path.read_text())
        for path in (tmp_path / 'work').glob('2*/2*.json')
    ]
    assert any('coco/segm_mAP' in result for result in results)
    for name in ('predictions.png', 'loss.png', 'ap.png',
                 *['levels.jpg'] * len(levels)):
        image = cv2.imread(str(tmp_path / 'work' / name))
        assert image.std() > 5, f'{name} shows nothing'
