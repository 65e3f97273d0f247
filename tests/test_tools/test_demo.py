# Copyright (c) mmfishnet authors. All rights reserved.
import json
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from types import SimpleNamespace

import cv2
import pytest


@pytest.fixture
def one_process(run_script, monkeypatch):
    """The commands of the demo, run in this process: each start takes
    seconds, and what two processes do is seen in test_train_test.py."""
    real = subprocess.Popen

    def popen(command, *args, **kwargs):
        if command[0] not in ('bash', sys.executable):
            return real(command, *args, **kwargs)
        script, *args = command[1:]
        if script.endswith('.sh'):
            args.remove('1')  # process
            script = re.sub('dist_(.*)sh', r'\1py', script)
        text = StringIO()
        with redirect_stdout(text), redirect_stderr(text):
            code = run_script(script, *args)
        text.seek(0)
        return SimpleNamespace(stdout=text, wait=lambda: code, returncode=code,
                               communicate=lambda: (text.read(), None))

    monkeypatch.setattr(subprocess, 'Popen', popen)


@pytest.mark.slow
def test_demo_leaves_its_results_in_one_folder(one_process, call_tool,
                                               tmp_path):
    levels = ['--levels'] * bool(find_spec('mmseg'))
    work = tmp_path / 'work'
    done = call_tool('demo', '--quick', '--gpus', '1', '--work-dir', work,
                     '--data-dir', tmp_path / 'data', *levels)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert lines[-1].endswith(str(work))
    count = 6 if levels else 4
    stages = [line for line in lines if line.startswith('[')]
    assert [line[:6] for line in stages] == [
        f'[{number}/{count}] ' for number in range(1, count + 1)]
    assert len(lines) <= 2 * count + 2 and not done.stderr
    # The twelve COCO numbers, for boxes and for masks, and what is shown
    log = (work / 'demo.log').read_text()
    assert len(re.findall(r'Average (Precision|Recall)', log)) >= 48
    shown = re.findall(r'box AP ([\d.]+), mask AP ([\d.]+)', done.stdout)
    assert len(shown) == 2 and shown[0] == shown[1]
    assert any('coco/segm_mAP' in json.loads(path.read_text())
               for path in work.glob('2*/2*.json'))
    for name in ('predictions.png', 'loss.png', 'ap.png',
                 *['levels.jpg'] * len(levels)):
        image = cv2.imread(str(work / name))
        assert image.std() > 5, f'{name} shows nothing'
