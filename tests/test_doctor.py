# Copyright (c) mmfishnet authors. All rights reserved.
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmfishnet import doctor, probes, version

ROOT = Path(__file__).resolve().parents[1]


def test_missing_packages_are_named_without_importing(tmp_path):
    """A Python with mmfishnet and a torch that must not be imported."""
    for module, number in (('torch', '1.13.1'), ('mmengine', '0.10.7')):
        (tmp_path / module).mkdir()
        (tmp_path / module / '__init__.py').write_text(
            "raise SystemError('imported')")
        (tmp_path / module / 'version.py').write_text(
            f"__version__ = '{number}'")
    # -S: no other packages than these
    done = subprocess.run(
        [sys.executable, '-S', '-m', 'mmfishnet', 'doctor'],
        env={**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'},
        cwd=tmp_path, capture_output=True, text=True)
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
    assert lines[-1] == '4 in the way (BAD) of training Mask R-CNN.'
    assert 'imported' not in done.stdout + done.stderr


def test_everything_is_run(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'coco/annotations').mkdir(parents=True)
    monkeypatch.setenv('MMDET_DATASETS', str(tmp_path / 'coco'))
    assert doctor.examine() == 0
    printed, errors = capfd.readouterr()
    for line in ('nms and RoIAlign work', 'FishNet-99 runs', 'its ops work',
                 f'ok  COCO         {tmp_path}/coco\n',
                 '-> never published: train them with'):
        assert line in printed
    assert 'BAD' not in printed
    # Nothing that others say while they are imported.
    assert 'OneDL' not in printed and not errors


def test_ops_that_load_and_are_wrong(monkeypatch):
    monkeypatch.setattr(
        'mmcv.ops.nms', lambda boxes, scores, threshold:
        (boxes, torch.arange(len(boxes))))
    mark, _, found, todo = next(doctor.ops())
    assert mark == 'BAD' and 'nms keeps [0, 1, 2] of [1, 2]' in found
    assert todo.startswith('python tools/setup_env.py ')


@pytest.mark.parametrize('number, mark', [
    ('2.0.8', 'ok'), ('2.0.9', 'BAD'), ('2.0.10', 'BAD'), ('2.0.11', 'ok')])
def test_pycocotools_that_need_info(monkeypatch, number, mark):
    found = {'pycocotools': number}
    monkeypatch.setattr(doctor, 'installed_version', found.get)
    (seen, _, *words), = [
        line for line in doctor.packages() if line[1] == 'pycocotools']
    assert seen == mark
    if mark == 'BAD':
        assert "KeyError: 'info'" in words[0]
        assert words[1] == 'pip install "pycocotools!=2.0.9,!=2.0.10"'
    # The same versions that pip is told of.
    assert version.requirement('pycocotools') in (
        ROOT / 'requirements/runtime.txt').read_text().splitlines()


def test_a_full_disk(monkeypatch):
    monkeypatch.setattr('shutil.disk_usage',
                        lambda folder: SimpleNamespace(free=1e9))
    with pytest.raises(OSError, match='1.0 GB free in .*set-up needs 8'):
        probes.disk('set-up')
