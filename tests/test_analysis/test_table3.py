# Copyright (c) mmfishnet authors. All rights reserved.
import json
import math
import re
from functools import cache
from pathlib import Path

import cv2
import pytest
from mmengine.config import Config
from mmengine.visualization import Visualizer

import mmfishnet  # noqa: F401
from table3 import (
    PAPER,
    Finished,
    arrange_rows,
    backbone_name,
    draw_bars,
    missing_configs,
    read_finished,
    tabulate_rows,
)

ROOT = Path(__file__).parents[2]
PAPER_TEXT = ROOT.parent / 'shared' / 'paper.md'


def metrics(task, *percents):
    names = ('mAP', 'mAP_s', 'mAP_m', 'mAP_l')
    return {f'coco/{task}_{n}': p / 100 for n, p in zip(names, percents)}


def load(config):
    return Config.fromfile(ROOT / 'configs' / f'{config}.py')


@cache
def dumped(config):
    return load(config).pretty_text  # slow


def start_run(work_dir, config, time='20300101_000000'):
    """What a run of a config leaves when it starts."""
    visualizer = Visualizer(
        vis_backends=[dict(type='LocalVisBackend')],
        save_dir=str(work_dir / time))
    (work_dir / time / 'vis_data').mkdir(parents=True)
    (work_dir / time / 'vis_data' / 'config.py').write_text(dumped(config))
    return visualizer


@pytest.fixture(scope='module')
def mask_run(tmp_path_factory):
    """Mask R-CNN with FishNet-150, stopped and resumed in epoch 2."""
    work_dir = tmp_path_factory.mktemp('run') / 'any name'
    boxes = metrics('bbox', 41.5, 24.0, 45.0, 55.0)
    for time, epochs in (('20300101_000000', ((1, 20.), (2, 1.))),
                         ('20300102_000000', ((2, 37.6), (3, 36.1)))):
        visualizer = start_run(work_dir, 'mask_rcnn_fishnet150_fpn', time)
        for epoch, ap in epochs:
            visualizer.add_scalars(
                dict(lr=0.02, loss=1.5, epoch=epoch, iter=7330 * epoch),
                step=7330 * epoch)
            # -100: COCO's -1, for none
            masks = metrics('segm', ap, 19.8, 40.2, -100)
            visualizer.add_scalars({**boxes, **masks}, step=epoch)
    return work_dir


@pytest.fixture(scope='module')
def faster_run(tmp_path_factory):
    """Faster R-CNN with ResNet-50, tested only."""
    work_dir = tmp_path_factory.mktemp('run') / 'mask_rcnn_fishnet150_fpn'
    start_run(work_dir, 'faster_rcnn_r50_fpn')
    (work_dir / '20300101_000000' / '20300101_000000.json').write_text(
        json.dumps(metrics('bbox', 38.5, 21.4, 41.6, 50.1)))
    return work_dir


def test_read_run(mask_run, faster_run):
    run = read_finished(mask_run)
    assert (run.detector, run.backbone) == ('MaskRCNN', 'FishNet-150')
    assert run.scores['segm'][:3] == pytest.approx((36.1, 19.8, 40.2))
    assert math.isnan(run.scores['segm'][3])
    assert run.scores['bbox'] == pytest.approx((41.5, 24.0, 45.0, 55.0))
    assert run.source == 'last epoch, 3 of 32'
    assert run.ann_file.endswith('instances_val2017.json')
    best = read_finished(mask_run, best=True)
    assert best.scores['segm'][0] == pytest.approx(37.6)
    assert best.source == 'best epoch, 2 of 32'

    run = read_finished(faster_run)
    assert (run.detector, run.backbone) == ('FasterRCNN', 'ResNet-50')
    assert run.scores == {'bbox': pytest.approx((38.5, 21.4, 41.6, 50.1))}
    assert run.source == 'test'
    for config, backbone in (('x50_32x4d', 'ResNeXt-50 (32x4d)'),
                             ('fishnext150', 'FishNeXt-150'),
                             ('fishnet99', 'FishNet-99')):
        model = load(f'mask_rcnn_{config}_fpn').model
        assert backbone_name(model.backbone) == backbone


def test_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist'):
        read_finished(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='not the work folder'):
        read_finished(tmp_path)
    start_run(tmp_path, 'mask_rcnn_fishnet150_fpn')
    with pytest.raises(FileNotFoundError, match='no result .* bbox'):
        read_finished(tmp_path)
    folder = tmp_path / 'htc' / '20300101_000000' / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'config.py').write_text(
        "model = dict(type='HybridTaskCascade', neck=dict(type='FPN'))")
    with pytest.raises(ValueError, match='HybridTaskCascade .* not in Table'):
        read_finished(tmp_path / 'htc')


def test_table(mask_run, faster_run):
    runs = [read_finished(mask_run), read_finished(faster_run)]
    markdown = tabulate_rows(arrange_rows(runs)).markdown()
    lines = [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in markdown.splitlines()
    ]  # yapf: disable
    assert {len(line) for line in lines} == {5}
    assert lines[7] == ['ResNeXt-50 (32x4d)', 'ours', '', '', '']
    assert lines[4][2:] == ['', '', '38.5/21.4/41.6/50.1']
    assert lines[5][2:] == ['', '', '+0.5/+0.0/+0.0/+0.0']
    ours, difference = lines[10:12]
    assert ours == [
        'FishNet-150', 'ours', '36.1/19.8/40.2/-', '41.5/24.0/45.0/55.0', ''
    ]
    assert difference[2:4] == ['-0.9/+0.0/+0.0/-', '+0.0/-0.1/+0.1/+0.0']
    assert missing_configs(runs) == [
        'mask_rcnn_r50_fpn.py', 'mask_rcnn_x50_32x4d_fpn.py',
        'faster_rcnn_x50_32x4d_fpn.py', 'faster_rcnn_fishnet150_fpn.py'
    ]
    for config in missing_configs([]):
        assert (ROOT / 'configs' / config).exists()
    with pytest.raises(ValueError, match='both .*any name.*give one'):
        arrange_rows([*runs, read_finished(mask_run)])
    # Other backbones follow.
    scores = dict(segm=(38., 20., 41., 51.), bbox=(42., 25., 45., 56.))
    last = arrange_rows([
        Finished(Path('run'), 'MaskRCNN', 'FishNet-201', scores, 'test', '')
    ])[-1]
    assert (last.backbone, last.source) == ('FishNet-201', 'ours')
    assert last.cells == [scores['segm'], scores['bbox'], None]


@pytest.mark.shared
@pytest.mark.skipif(not PAPER_TEXT.exists(), reason='needs the paper')
def test_numbers_of_the_paper():
    number = r'[+-]?\d+\.\d'
    found = []
    for line in PAPER_TEXT.read_text().splitlines():
        line = re.sub(r'</?b> ?', '', line)
        if len(cells := re.findall('/'.join([number] * 4), line)) == 3:
            found.append(cells)
    rows = [
        line.split('|') for line in
        tabulate_rows(arrange_rows([])).markdown().splitlines()
        if '| paper |' in line
    ]
    assert len(found) == len(rows) == len(PAPER) + 2
    assert [[c.strip() for c in row[3:6]] for row in rows] == found


def test_tool(call_tool, mask_run, tmp_path):
    markdown = tmp_path / 'out' / 'a.md'
    pictures = [tmp_path / 'out' / f'{name}.png' for name in 'ab']
    done = call_tool('analysis_tools/table3', mask_run, '--best',
                     '--markdown', markdown, '--plot', pictures[0])
    assert done.returncode == 0, done.stderr
    assert '37.6/19.8/40.2/-' in done.stdout
    assert '+2.3/+1.3/+2.8/+2.6' in done.stdout  # the paper's own
    assert 'best epoch, 2 of 32' in done.stdout
    assert 'missing: configs/mask_rcnn_r50_fpn.py' in done.stdout
    assert '37.6/19.8/40.2/-' in markdown.read_text()
    draw_bars(arrange_rows([]), pictures[1])
    with_ours, without = (cv2.imread(str(path)) for path in pictures)
    assert with_ours.shape == without.shape and (with_ours != without).any()

    failed = call_tool('analysis_tools/table3', tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.startswith('error:')
