"""A short training, and the page about it."""
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from mmengine.structures import InstanceData

from mmfishnet.datasets.shapes import draw_coco
from mmfishnet.report import read_run
from mmfishnet.report.evaluate import activations, evaluate, match

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory, run_tool):
    folder = tmp_path_factory.mktemp('report')
    draw_coco(folder / 'shapes', train=12, val=4, size=96)
    result = run_tool(
        'train', ROOT / 'configs/shapes/mask_rcnn_fishnet_shapes.py',
        '--work-dir', folder / 'run', '--data-root', folder / 'shapes',
        '--cfg-options', 'model.backbone.init_cfg=None',
        'train_cfg.max_epochs=2', 'default_hooks.logger.interval=1',
        'model.test_cfg.rcnn.score_thr=0.0')
    assert result.returncode == 0, result.stderr[-2000:]
    return folder / 'run'


class Page(HTMLParser):
    """What a browser would load from elsewhere, and the text."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.text, self.images, self.charts = [], [], 0, 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.images += tag == 'img'
        self.charts += tag == 'svg'
        for key in ('src', 'href', 'xlink:href'):
            value = attrs.get(key)
            if tag != 'a' and value and not value.startswith(('data:', '#')):
                self.loaded.append(value)
        assert tag not in ('script', 'link')

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope='module')
def report(work_dir, run_tool):
    out = work_dir.parent / 'deep/report.html'
    result = run_tool('report', work_dir, '--out', out, '--device', 'cpu',
                      '--score-thr', 0)
    assert result.returncode == 0, result.stderr
    return out


@pytest.mark.parametrize('width', [390, 1280])
def test_fits_the_window(report, widths, width):
    assert widths([report], width) == {'report.html': width}


def test_page(work_dir, report):
    page = Page(report.read_text())
    assert page.loaded == []
    # Losses, validation, rates, precision, classes and confusion.
    assert page.charts == 6
    # All four images are among the worst, and ten stages and the image.
    assert page.images == 4 + 11
    text = ' '.join(page.text)
    run = read_run(work_dir)
    for piece in ('tail1', 'body3', 'head3', 'System environment',
                  'python tools/train.py', 'model = dict('):
        assert piece in text
    # The AP is that of the training's own last evaluation.
    for name in ('coco/bbox_mAP', 'coco/segm_mAP'):
        assert f'{run.last(name):.3f}' in text


def test_evaluation_is_that_of_the_training(work_dir):
    run = read_run(work_dir)
    evaluation = evaluate(run, 'cpu', progress=False)
    for kind in ('bbox', 'segm'):
        for iou, key in ((None, 'mAP'), (0.5, 'mAP_50'), (0.75, 'mAP_75')):
            assert evaluation.ap(
                kind, iou=iou) == pytest.approx(
                    run.last(f'coco/{kind}_{key}'), abs=6e-4)
    assert evaluation.confusion.sum(1)[:-1].sum() == len(
        evaluation.coco.anns)
    stages = activations(evaluation, 1)
    assert [name for name, _ in stages] == [
        'tail1', 'tail2', 'tail3', 'bridge', 'body1', 'body2', 'body3',
        'head1', 'head2', 'head3'
    ]
    sizes = [response.shape[0] for _, response in stages]
    assert sizes == [32, 16, 8, 4, 4, 8, 16, 32, 16, 8]


def test_side_by_side_and_without_predicting(work_dir, call_tool, tmp_path):
    other = tmp_path / 'other <run>'
    shutil.copytree(work_dir, other)
    out = tmp_path / 'report.html'
    result = call_tool('report', work_dir, other, '--out', out, '--no-predict')
    assert result.returncode == 0, result.stderr
    text = out.read_text()
    assert '<run>' not in text and 'other &lt;run&gt;' in text
    assert Page(text).charts == 3


def test_a_resumed_run_is_one(work_dir, tmp_path):
    """The second part begins at epoch 2 and replaces what was there."""
    run_dir = tmp_path / 'run'
    shutil.copytree(work_dir, run_dir)
    first, = run_dir.glob('*/vis_data/scalars.json')
    lines = first.read_text().splitlines()
    second = run_dir / '99991231_000000/vis_data/scalars.json'
    second.parent.mkdir(parents=True)
    second.write_text('\n'.join(
        re.sub(r'"loss": [\d.]+', '"loss": 77.0', line) for line in lines
        if '"iter": 4' in line or '"step": 2,' in line))
    # A test in the same folder has left its config there.
    (run_dir / 'later.py').write_text("load_from = 'epoch_2.pth'")
    run, before = read_run(run_dir), read_run(work_dir)
    assert run.config.to_dict() == before.config.to_dict()
    assert run.parts == 2
    assert [e['iter'] for e in run.train] == [1, 2, 3, 4]
    assert [e['loss'] for e in run.train][:3] == [
        e['loss'] for e in before.train
    ][:3]
    assert run.train[3]['loss'] == 77


def test_refusals(tmp_path, call_tool):
    result = call_tool('report', tmp_path)
    assert result.returncode == 1
    assert 'is not the work directory of a training' in result.stderr


def test_pairs():
    """One to one, the right class first, the rest missed or invented."""

    def objects(boxes, labels):
        return InstanceData(
            bboxes=np.array(boxes, float).reshape(-1, 4),
            labels=np.array(labels, int))

    truth = objects([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]],
                    [0, 1, 1])
    found = objects([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10],
                     [80, 80, 90, 90]], [1, 0, 0, 0])
    assert match(truth, found, 2).tolist() == [[1, 0, 0], [0, 1, 1],
                                               [2, 0, 0]]
    nothing = objects([], [])
    assert match(truth, nothing, 2)[:, -1].tolist() == [1, 2, 0]
    assert match(nothing, found, 2)[-1].tolist() == [3, 1, 0]
