# Copyright (c) mmfishnet authors. All rights reserved.
import os
import subprocess
import sys
from pathlib import Path

import torch

from mmfishnet import doctor

ROOT = Path(__file__).resolve().parents[1]


def test_missing_packages_are_named_without_importing(tmp_path):
    """A Python with mmfishnet and a torch that must not be imported."""
    for module, text in (('torch', "raise SystemError('imported')"),
                         ('mmengine', '')):
        (tmp_path / module).mkdir()
        (tmp_path / module / '__init__.py').write_text(text)
    (tmp_path / 'torch/version.py').write_text("__version__ = '1.13.1'")
    (tmp_path / 'mmengine/version.py').write_text("__version__ = '0.10.7'")
    # -S: no other packages than these
    done = subprocess.run([sys.executable, '-S', '-m', 'mmfishnet', 'doctor'],
                          env={
                              **os.environ, 'PYTHONPATH': os.pathsep.join(
                                  [str(tmp_path), str(ROOT)])
                          },
                          cwd=tmp_path,
                          capture_output=True,
                          text=True)
    assert done.returncode == 1, done.stderr
    lines = [' '.join(line.split()) for line in done.stdout.splitlines()]
    assert 'ok mmengine 0.10.7' in lines
    for bad, todo in (('torch 1.13.1, but torch>=2.0 is needed', 'pip'),
                      ('mmcv not installed', 'tools/setup_env.py'),
                      ('mmdet not installed', 'tools/setup_env.py')):
        position = lines.index(f'BAD {bad}')
        assert lines[position + 1].startswith('-> ')
        assert todo in lines[position + 1]
    assert '- mmseg not installed (optional)' in lines
    assert lines[-1] == '3 in the way (BAD) of training Mask R-CNN.'
    assert 'imported' not in done.stdout + done.stderr


def test_everything_is_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'coco/annotations').mkdir(parents=True)
    monkeypatch.setenv('MMDET_DATASETS', str(tmp_path / 'coco'))
    assert doctor.examine() == 0
    printed = capsys.readouterr().out
    for line in ('nms and RoIAlign work', 'FishNet-99 runs', 'its ops work',
                 f'ok  COCO         {tmp_path}/coco\n',
                 '-> python tools/get_weights.py fishnet150 '):
        assert line in printed
    assert 'BAD' not in printed


def test_ops_that_load_and_are_wrong(capsys, monkeypatch):
    monkeypatch.setattr(
        'mmcv.ops.nms', lambda boxes, scores, threshold:
        (boxes, torch.arange(len(boxes))))
    report = doctor.Report()
    doctor.check_ops(report, missing=set())
    assert report.problems == 1
    printed = capsys.readouterr().out
    assert 'nms keeps [0, 1, 2] of [1, 2]' in printed
    assert '-> python tools/setup_env.py ' in printed
