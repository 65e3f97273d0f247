"""A short training, and the page about it."""
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.models.detectors.base import BaseDetector
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData

from mmfishnet.datasets.shapes import draw_coco
from mmfishnet.report.evaluate import (
    Evaluation,
    _objects,
    activations,
    evaluate,
    match,
)
from mmfishnet.report.page import _pair
from mmfishnet.work_dir import read_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory, call_tool):
    folder = tmp_path_factory.mktemp('report')
    draw_coco(folder / 'shapes', train=8, val=4, size=96)
    result = call_tool(
        'train', ROOT / 'configs/shapes/mask_rcnn_fishnet_shapes.py',
        '--work-dir', folder / 'run', '--data-root', folder / 'shapes',
        '--cfg-options', 'model.backbone.init_cfg=None',
        'train_cfg.max_epochs=2', 'default_hooks.logger.interval=1',
        'model.test_cfg.rcnn.score_thr=0.0')
    assert result.returncode == 0, result.stderr[-2000:]
    return folder / 'run'


class Page(HTMLParser):
    """Tags, text, and what a browser would load from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.text, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [
            value for key, value in attrs
            if tag != 'a' and key in ('src', 'href', 'xlink:href')
            and value and not value.startswith(('data:', '#'))]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope='module')
def report(work_dir, call_tool):
    out = work_dir.parent / 'deep/report.html'
    result = call_tool('report', work_dir, '--out', out, '--device', 'cpu',
                       '--score-thr', 0)
    assert result.returncode == 0, result.stderr
    return out


@pytest.mark.parametrize('width', [390, 1280])
def test_fits_the_window(report, widths, width):
    assert widths([report], width) == {'report.html': width}


def test_page(work_dir, report):
    page = Page(report.read_text())
    assert not page.loaded and not {'script', 'link'} & set(page.tags)
    # Losses, validation, rates, precision, classes and confusion.
    assert page.tags.count('svg') == 6
    # All four images are among the worst, and ten stages and the image.
    assert page.tags.count('img') == 4 + 11
    text = ' '.join(page.text)
    run = read_run(work_dir)
    # A picture is named with its folder.
    for piece in ('tail1', 'body3', 'head3', 'System environment',
                  'python tools/train.py', 'model = dict(',
                  'val2017/000000000001.jpg: '):
        assert piece in text
    # The AP is that of the training's own last evaluation.
    for name in ('coco/bbox_mAP', 'coco/segm_mAP'):
        assert f'{run.metrics[name]:.3f}' in text


def test_evaluation_is_that_of_the_training(work_dir):
    """Of masks by size, too: their areas are not those of the boxes."""
    run = read_run(work_dir)
    evaluation = evaluate(run, 'cpu')
    assert evaluation.metrics == pytest.approx(run.metrics, abs=6e-4)
    assert {'coco/segm_mAP_s', 'coco/bbox_mAP_l'} < set(evaluation.metrics)
    assert set(evaluation.per_class) == set(evaluation.model.classes)
    truth = json.loads(
        (work_dir.parent / 'shapes/annotations/instances_val2017.json'
         ).read_text())
    assert evaluation.confusion.sum(1)[:-1].sum() == len(truth['annotations'])
    stages = activations(evaluation.model, evaluation.seen[0].path)
    assert {name: len(response) for name, response in stages} == dict(
        tail1=32, tail2=16, tail3=8, bridge=4, body1=4, body2=8, body3=16,
        head1=32, head2=16, head3=8)


def test_masks_are_large_or_small_by_themselves(work_dir, monkeypatch):
    """Not by their boxes, which are all of the picture here."""
    def all_and_small_wrong_ones(self, batch):
        for sample in batch['data_samples']:
            truth, (h, w) = sample.gt_instances, sample.ori_shape
            wrong = np.zeros((6, h, w), np.uint8)
            wrong[:, :4, :4] = 1
            masks = np.concatenate([truth.masks.to_ndarray(), wrong])
            sample.pred_instances = InstanceData(
                masks=torch.from_numpy(masks).bool(),
                labels=torch.cat([truth.labels, torch.arange(6)]),
                scores=torch.arange(len(masks)) / len(masks),
                bboxes=torch.tensor([[0., 0, w, h]]).repeat(len(masks), 1))
        return batch['data_samples']

    monkeypatch.setattr(BaseDetector, 'test_step', all_and_small_wrong_ones)
    found = evaluate(read_run(work_dir), 'cpu').metrics
    assert found['coco/segm_mAP_m'] == 1
    assert 0 < found['coco/segm_mAP_s'] < 1


def test_side_by_side_and_without_predicting(work_dir, call_tool, tmp_path):
    """Also of runs by iterations, with losses of the validation set."""
    other = tmp_path / 'other <run>/run'
    shutil.copytree(work_dir, other)
    log, = other.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        line.pop('epoch', None)
        if 'lr' not in line:
            line.update({'val/loss': 3.5, 'mIoU': 41.5, 'step': 0})
    log.write_text('\n'.join(map(json.dumps, lines)))
    config = log.with_name('config.py')
    config.write_text(config.read_text()
                      + '\ntrain_cfg = dict(max_iters=6)\n')
    out = tmp_path / 'report.html'
    result = call_tool('report', work_dir, other, '--out', out, '--no-predict')
    assert result.returncode == 0, result.stderr
    text = out.read_text()
    assert '<run>' not in text and 'other &lt;run&gt;/run' in text
    for words in ('epoch or iteration', 'validation', 'mIoU', '41.500'):
        assert words in text
    assert Page(text).tags.count('svg') == 3
    result = call_tool('report', tmp_path)
    assert result.returncode == 1
    assert 'is not the work folder of a run' in result.stderr


def test_pictures_and_pixels(tmp_path):
    """Of classifiers and segmenters: confusion, worst and best, drawings."""
    pytest.importorskip('mmseg')
    from mmpretrain.structures import DataSample
    from mmseg.structures import SegDataSample
    model = SimpleNamespace(
        classes=('a', 'b'), model=None,
        read=lambda path: dict(img=np.zeros((16, 16, 3), np.uint8)))
    labels, pixels = Evaluation(model, 0.3), Evaluation(model, 0.3)
    truth = np.arange(4).reshape(2, 2) % 2  # of two of four columns each
    for i, score in enumerate((0.9, 0.2, 0.6)):
        path = str(tmp_path / f'{i}/one.png')
        labels.add(DataSample(metainfo=dict(img_path=path)).set_gt_label(
            1).set_pred_score(torch.tensor([1 - score, score])), {})
        found = truth.copy()
        found[0, :i] = 0
        pixels.add(SegDataSample(
            metainfo=dict(img_path=path),
            gt_sem_seg=PixelData(data=torch.from_numpy(truth)),
            pred_sem_seg=PixelData(data=torch.from_numpy(found))), {})
    assert labels.confusion.tolist() == [[0, 0], [1, 2]]
    assert [seen.score for seen in labels.seen] == pytest.approx(
        [0.2, 0.6, 0.9])
    assert pixels.confusion.tolist() == [[6, 0], [1, 5]]
    assert [seen.score for seen in pixels.seen] == [0.75, 1, 1]
    # A folder a class: files of one name are told apart.
    assert '1/one.png: truth: b, its score 20%' in _pair(
        labels, labels.seen[0])[1]
    assert '2/one.png: 75.0% of' in _pair(pixels, pixels.seen[0])[1]


def test_truth_is_the_data_sets():
    """Whatever the pipeline resizes; what counts as ignored is left out."""
    init_default_scope('mmdet')
    square = [2, 2, 6, 2, 6, 6, 2, 6]
    objects = [dict(bbox=[2, 2, 6, 6], bbox_label=1, ignore_flag=flag,
                    mask=[square]) for flag in (0, 1)]
    truth = _objects(dict(instances=objects, height=8, width=9), (8, 9))
    assert truth.labels.tolist() == [1]
    assert truth.bboxes.tolist() == [[2, 2, 6, 6]]
    assert truth.masks.shape == (1, 8, 9) and truth.masks.sum() == 16
    assert len(_objects(dict(instances=[]), (8, 9))) == 0


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
