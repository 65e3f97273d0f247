import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import set_random_seed
from pycocotools.coco import COCO

from mmfishnet.apis import Predictor, predict
from mmfishnet.checkpoints.weights import to_official
from mmfishnet.datasets.shapes import draw_coco

ROOT = Path(__file__).resolve().parents[2]


SHAPES = ('ring', 'square', 'triangle', 'star', 'cross', 'heart')


def save(config, path, classes, **changes):
    """A checkpoint as training writes it, of a model that learned nothing."""
    cfg = Config.fromfile(ROOT / 'configs' / config)
    cfg.merge_from_dict({'model.backbone.init_cfg': None} | changes)
    init_default_scope(cfg.default_scope)
    set_random_seed(0)
    meta = dict(cfg=cfg.pretty_text, dataset_meta=dict(classes=classes))
    torch.save(
        dict(meta=meta, state_dict=MODELS.build(cfg.model).state_dict()), path)
    return str(path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Pictures in two folders, two of them of one name, and a broken one."""
    folder = tmp_path_factory.mktemp('pictures')
    draw_coco(folder / 'drawn', train=1, val=3, classes=SHAPES, size=96)
    for name, path in zip(('a/one.jpg', 'b/one.jpg', 'two.jpg'),
                          sorted((folder / 'drawn/val2017').iterdir())):
        (folder / name).parent.mkdir(exist_ok=True)
        path.rename(folder / name)
    (folder / 'b/empty.png').touch()
    return folder


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """All that it finds counts: what it has not learned has low scores."""
    return save(
        'shapes/mask_rcnn_fishnet_shapes.py',
        tmp_path_factory.mktemp('detector') / 'epoch_1.pth', SHAPES,
        **{'model.test_cfg.rcnn.score_thr': 0.0,
           'model.test_cfg.rcnn.max_per_img': 7})


@pytest.fixture(scope='module')
def model(detector):
    return Predictor(detector, device='cpu')


def config_of(path):
    return Config.fromstring(torch.load(path)['meta']['cfg'], '.py')


def table(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def as_table(rows):
    return [{key: str(value) for key, value in row.items()} for row in rows]


def test_files(detector, model, folder, tmp_path, capsys):
    names = ['a/one.jpg', 'b/one.jpg', 'two.jpg']
    rows = predict([folder / name for name in ('a', 'b', 'two.jpg')], model,
                   tmp_path, score_thr=0.0, batch_size=2)
    assert 'skipped b/empty.png: is empty' in capsys.readouterr().out
    assert sorted({row['picture'] for row in rows}) == names
    assert sum(row['count'] for row in rows) == 3 * 7
    drawn = tmp_path / 'pictures'
    assert sorted(str(path.relative_to(drawn))
                  for path in drawn.rglob('*.jpg')) == names

    # What others read: pycocotools, and MMDetection's own way to predict.
    from mmdet.apis import inference_detector, init_detector
    coco = COCO(str(tmp_path / 'images.json'))
    results = coco.loadRes(str(tmp_path / 'predictions.json'))
    ids = {image['file_name']: i for i, image in coco.imgs.items()}
    upstream = init_detector(config_of(detector), detector, device='cpu')
    objects = table(tmp_path / 'objects.csv')
    for name in names:
        theirs = inference_detector(
            upstream, str(folder / name)).pred_instances
        ours = sorted(
            results.loadAnns(results.getAnnIds(ids[name])),
            key=lambda ann: -ann['score'])
        np.testing.assert_allclose([ann['score'] for ann in ours],
                                   theirs.scores, atol=1e-5)
        boxes = np.array([ann['bbox'] for ann in ours])
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, theirs.bboxes, atol=1e-2)
        masks = [results.annToMask(ann) for ann in ours]
        assert (np.array(masks) == theirs.masks.numpy()).mean() > 0.999
        listed = [o for o in objects if o['picture'] == name]
        assert [int(o['area']) for o in listed] == [m.sum() for m in masks]
        assert [SHAPES.index(o['class'])
                for o in listed] == theirs.labels.tolist()
    assert table(tmp_path / 'counts.csv') == as_table(rows)


def test_threshold_and_ids_of_a_coco_file(model, folder, tmp_path, capsys):
    ann_file = tmp_path / 'truth.json'
    categories = [dict(id=15 - i, name=name) for i, name in enumerate(SHAPES)]
    ann_file.write_text(json.dumps(dict(
        images=[dict(id=77, file_name='two.jpg')], categories=categories)))
    given = dict(ann_file=ann_file, pictures=False)
    prediction, = model(folder / 'two.jpg')
    scores = prediction.instances.scores
    rows = predict([folder / 'two.jpg', folder / 'a'], model,
                   tmp_path / 'out', score_thr=float(scores[2]), **given)
    assert sum(
        row['count'] for row in rows if row['picture'] == 'two.jpg') == 3
    assert 'own: 1, such as a/one.jpg' in capsys.readouterr().out
    assert not (tmp_path / 'out/pictures').exists()
    results = json.loads((tmp_path / 'out/predictions.json').read_text())
    # What the file does not name takes no id from what it does.
    assert {entry['image_id'] for entry in results} == {77, 78}
    named = [entry for entry in results if entry['image_id'] == 77]
    assert [entry['category_id'] for entry in named
            ] == [15 - label for label in prediction.instances.labels]

    ann_file.write_text(json.dumps(dict(images=[], categories=[categories[0]]
                                        )))
    with pytest.raises(ValueError, match='no category named square'):
        predict(folder / 'two.jpg', model, tmp_path / 'out', **given)


def test_video(model, tmp_path):
    paths = {}
    for name, code, count in (('clip.avi', 'MJPG', 3),
                              ('clip.mp4', 'mp4v', 2)):
        paths[str(tmp_path / name)] = count
        video = cv2.VideoWriter(
            str(tmp_path / name), cv2.VideoWriter_fourcc(*code), 10, (128, 96))
        for i in range(count):
            video.write(np.full((96, 128, 3), 60 * i, np.uint8))
        video.release()
    rows = predict([*paths], model, tmp_path / 'out', score_thr=0)
    assert {row['picture'] for row in rows} == {
        f'{Path(path).name}#{i:06d}'
        for path, count in paths.items() for i in range(count)
    }
    # Two of one name but for its end are two.
    for name, count in zip(('clip.mp4', 'clip.mp4.mp4'), paths.values()):
        drawn = cv2.VideoCapture(str(tmp_path / 'out/pictures' / name))
        frames = 0
        while drawn.read()[0]:
            frames += 1
        assert frames == count


def test_segmenter(tmp_path, folder):
    pytest.importorskip('mmseg')
    classes = ('background', *SHAPES)
    path = save('shapes/semantic_fpn_fishnet_shapes.py',
                tmp_path / 'iter_1.pth', classes)
    segmenter = Predictor(path, device='cpu')
    rows = predict(folder / 'a', segmenter, tmp_path / 'out')
    from mmseg.apis import inference_model, init_model
    theirs = inference_model(init_model(config_of(path), path, device='cpu'),
                             str(folder / 'a/one.jpg'))
    pixels = theirs.pred_sem_seg.data[0].numpy()
    written = cv2.imread(str(tmp_path / 'out/maps/one.png'), -1)
    np.testing.assert_array_equal(written, pixels)
    assert table(tmp_path / 'out/areas.csv') == as_table(rows)
    assert {row['class']: row['area'] for row in rows} == {
        classes[i]: n for i, n in zip(*np.unique(pixels, return_counts=True))}
    assert sum(row['share'] for row in rows) == pytest.approx(1, abs=1e-5)
    assert cv2.imread(str(tmp_path / 'out/pictures/one.jpg')) is not None
    # Said before anything is read or written.
    with pytest.raises(ValueError, match='tiles are for detectors'):
        predict(folder / 'a', segmenter, tmp_path / 'tiles', tile=64)
    assert not (tmp_path / 'tiles').exists()


def test_classifier(tmp_path, folder, call_tool):
    classes = [f'class_{i}' for i in range(12)]
    path = save('classification/fishnet_shapes.py',
                tmp_path / 'epoch_1.pth', classes)
    result = call_tool('predict', folder / 'a', folder / 'two.jpg',
                       '--checkpoint', path, '--out-dir', tmp_path / 'out',
                       '--device', 'cpu', '--batch-size', 2)
    assert result.returncode == 0, result.stderr
    assert 'pictures: 2' in result.stdout
    rows = table(tmp_path / 'out/predictions.csv')
    assert [row['picture'] for row in rows] == ['a/one.jpg', 'two.jpg']
    results = json.loads((tmp_path / 'out/predictions.json').read_text())
    from mmpretrain.apis import get_model
    cfg = config_of(path)
    model = get_model(cfg, pretrained=path, device='cpu')
    for row, entry in zip(rows, results):
        image = cv2.imread(str(folder / row['picture']))
        image = cv2.resize(image, (64, 64))
        batch = model.data_preprocessor(
            dict(inputs=[torch.from_numpy(image).permute(2, 0, 1)]))
        with torch.no_grad():
            scores = model(batch['inputs'], mode='tensor').softmax(-1)[0]
        np.testing.assert_allclose(entry['scores'], scores, atol=1e-5)
        assert row['class'] == classes[int(scores.argmax())]

    # The same weights under the authors' names, and no config with them.
    cfg.dump(tmp_path / 'config.py')
    torch.save(dict(state_dict=to_official(model.state_dict()),
                    meta=dict(dataset_meta=dict(classes=classes))),
               tmp_path / 'theirs.pth')
    result = call_tool('predict', folder / 'two.jpg', '--checkpoint',
                       tmp_path / 'theirs.pth', '--config',
                       tmp_path / 'config.py', '--out-dir', tmp_path / 'again')
    assert result.returncode == 0, result.stderr
    again, = json.loads((tmp_path / 'again/predictions.json').read_text())
    np.testing.assert_allclose(
        again['scores'], results[1]['scores'], atol=1e-5)


def test_inputs_that_are_refused(model, folder, tmp_path):
    (tmp_path / 'empty').mkdir()
    for path, error, words in (
        ('nowhere', FileNotFoundError, 'there is no file or folder'),
        ('empty', FileNotFoundError, 'no picture or video in the folder'),
        (folder / 'b/empty.png', ValueError, 'none of the pictures could be')):
        with pytest.raises(error, match=words):
            predict(tmp_path / path, model, tmp_path / 'out')
    for name, value in (('score_thr', 2), ('batch_size', 0), ('tile', 8)):
        with pytest.raises(ValueError, match=f'{name}={value} should be'):
            predict(folder, model, tmp_path / 'out', **{name: value})


def test_checkpoints_that_are_refused(detector, folder, tmp_path, call_tool):
    """Without config, of another backbone, of heads for other classes."""
    held = torch.load(detector, weights_only=False)
    state, other = held['state_dict'], tmp_path / 'other.pth'
    heads = 'roi_head.bbox_head.fc_cls.', 'roi_head.mask_head.conv_logits.'
    for changes, names in (
        (dict(meta={}), ['carries no config', '--config FILE']),
        (dict(state_dict={
            k: v for k, v in state.items() if 'head3' not in k}), ['head3']),
        (dict(state_dict={
            k: v[:3] if k.startswith(heads) else v
            for k, v in state.items()}), ['another shape', *heads])):
        torch.save(held | changes, other)
        result = call_tool('predict', folder / 'two.jpg', '--checkpoint',
                           other, '--out-dir', tmp_path / 'out')
        assert result.returncode == 1 and 'Traceback' not in result.stderr
        assert all(name in result.stderr for name in names)
