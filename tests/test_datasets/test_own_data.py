"""Whatever labels there are: the config that own_data.py writes for them."""
import importlib.util
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import (
    DATASETS,
    MODELS,
    PARAM_SCHEDULERS,
    init_default_scope,
)

from mmfishnet.config import config_path
from mmfishnet.datasets import CLASSES as SHAPES
from recipes import choose_recipe, measure_objects

SHARED = Path(__file__).resolve().parents[3] / 'shared/data'
_spec = importlib.util.spec_from_file_location(
    'layouts', Path(__file__).with_name('layouts.py'))
layouts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(layouts)

# Layout, kind of model, classes, whether own_data.py has to make the split.
STAR = ('star', 'cross', 'heart')
SORTED = ('cross', 'heart', 'star')
ROWS = dict(
    roboflow_coco=('MaskRCNN', STAR, False),
    cvat_coco=('MaskRCNN', STAR, True),
    label_studio_coco=('MaskRCNN', STAR, True),
    yolo_roboflow=('FasterRCNN', STAR, False),
    yolo_ultralytics=('MaskRCNN', STAR, False),
    yolo_plain=('FasterRCNN', STAR, True),
    voc=('FasterRCNN', SORTED, False),
    labelme=('MaskRCNN', SORTED, True),
    instance_maps=('MaskRCNN', ('object', ), False),
    mask_each=('MaskRCNN', ('object', ), True),
    maps=('EncoderDecoder', ('background', 'class_1', 'class_2', 'class_3'),
          False),
    maps_0_255=('EncoderDecoder', ('background', 'object'), True),
    folders=('ImageClassifier', SHAPES, False),
    folders_without_split=('ImageClassifier', SHAPES, True))


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    return layouts.Drawn(tmp_path_factory.mktemp('drawn') / 'coco')


@pytest.fixture
def own_data(call_tool, tmp_path):
    """own_data(folder, *args): the tool, and the config that it wrote."""

    def own_data(folder, *args, name='mine.py'):
        path = tmp_path / 'made' / name
        done = call_tool('dataset_tools/own_data', folder, path,
                         '--overwrite', *args)
        assert 'Traceback' not in done.stderr
        return done, Config.fromfile(path) if not done.returncode else None

    return own_data


def built(cfg, part='train'):
    init_default_scope(cfg.default_scope)
    return DATASETS.build(cfg[f'{part}_dataloader'].dataset)


@pytest.mark.parametrize('layout', ROWS)
def test_every_layout(drawn, own_data, tmp_path, layout):
    """What is found, what is chosen, and that the data set that MMDetection,
    MMPretrain or MMSegmentation builds holds what was drawn."""
    kind, classes, splits = ROWS[layout]
    root = tmp_path / 'white space'
    root.mkdir()
    layouts.LAYOUTS[layout](drawn, root)
    done, cfg = own_data(root)
    assert done.returncode == 0, done.stderr
    assert ('no split was given' in done.stdout) == splits
    assert cfg.model.type == kind
    dataset = built(cfg)
    assert tuple(dataset.metainfo['classes']) == classes
    both = [dataset, built(cfg, 'val')]
    assert all(len(d) for d in both)
    if kind == 'ImageClassifier':
        total = {'folders': 36, 'folders_without_split': 36}[layout]
        assert sum(map(len, both)) == total
        for d in both:
            for i in range(len(d)):
                info = d.get_data_info(i)
                assert classes[info['gt_label']] == Path(
                    info['img_path']).parent.name
        return
    pictures = [d.get_data_info(i) for d in both for i in range(len(d))]
    truth = [sample for split in drawn.splits for sample in drawn.splits[split]
             if split == 'train' or not splits]
    assert len(pictures) == len(truth)
    if kind == 'EncoderDecoder':
        for info in pictures:
            found = cv2.imread(info['seg_map_path'], -1)
            assert set(np.unique(found)) <= set(range(len(classes)))
            picture = drawn.like(cv2.imread(info['img_path']))
            semantic = drawn.semantic(picture)
            same = semantic > 0 if layout == 'maps_0_255' else semantic
            assert (found == same).all()
        return
    for info in pictures:
        picture = drawn.like(cv2.imread(info['img_path']))
        wanted = drawn.objects[picture]
        found = info['instances']
        assert len(found) == len(wanted)
        boxes = np.array(sorted(item['bbox'] for item in found))
        meant = [[x, y, x + w, y + h]
                 for x, y, w, h in (a['bbox'] for a in wanted)]
        if layout in ('yolo_ultralytics', 'labelme'):
            # An outline is that of the largest piece that is seen.
            split = 'train' if 'train2017' in picture else 'val'
            outlines = [drawn.outline(split, a) for a in wanted]
            meant = [[*o.min(axis=0), *o.max(axis=0)] for o in outlines]
        assert np.abs(boxes - np.array(sorted(meant))).max() <= 0.01
        if len(classes) > 1:
            assert sorted(classes[i['bbox_label']] for i in found) == sorted(
                layouts.CLASSES[a['category_id'] - 1] for a in wanted)
        if kind == 'MaskRCNN':
            assert all(item['mask'] for item in found)


def test_recipe():
    """Of how many pictures, how large, and what lies in them."""

    class Data(list):

        def get_data_info(self, index):
            return self[index]

    def objects(count, side, size):
        box = dict(bbox=[3, 3, 3 + side, 3 + side], ignore_flag=0)
        crowd = dict(box, bbox=[0, 0, 500, 500], ignore_flag=1)
        return Data([dict(width=size, height=size // 2,
                          instances=[box] * n + [crowd]) for n in count])

    few, many = choose_recipe([320] * 40, 4), choose_recipe([320] * 360, 4)
    assert (few.epochs, many.epochs) == (90, 10)
    assert (few.patience > 0, many.patience > 0) == (True, False)
    assert few.epochs // few.val_interval >= 2 * few.patience
    assert (few.side, choose_recipe([320] * 32 + [400] * 8, 4).side) == (320,
                                                                        416)
    assert choose_recipe([2000] * 9, 4).side == 512
    assert choose_recipe([320] * 4000, 4).epochs == 8
    assert many.lr == 2.4e-3 > 2 * choose_recipe([320] * 8, 4).lr
    # The second anchor size is the objects' own: scale * 4 * 2 pixels.
    measured = measure_objects(objects([2] * 9 + [40], 40, 320), 320)
    assert measured.anchor_scale * 4 * 2 == 40
    assert measured.crowd == 6  # between 2 and 40
    assert measure_objects(objects([1], 8, 320), 320).anchor_scale == 2
    assert measure_objects(
        objects([1], 80, 1000), 500).anchor_scale * 4 * 2 == 40
    with pytest.raises(ValueError, match='no object'):
        measure_objects(objects([0], 8, 320), 320)


def test_small_models(drawn, own_data, tmp_path, call_tool):
    """The channels fit, the fish is as large as the documentation says, what
    the tool wrote is kept, and a shorter training has a shorter cosine."""
    done, cfg = own_data(drawn.folder)
    assert done.returncode == 0, done.stderr
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    assert list(model.backbone.out_channels) == cfg.model.neck.in_channels
    assert round(sum(p.numel() for p in model.backbone.parameters()) / 1e6,
                 1) == 0.7
    assert cfg.train_cfg.max_epochs == 100
    assert cfg.custom_hooks[0].type == 'EarlyStoppingHook'
    best = cfg.default_hooks.checkpoint.save_best
    assert cfg.custom_hooks[0].monitor == best == 'coco/segm_mAP'
    # As MMEngine's runner builds it, of a training of three epochs.
    optimizer = torch.optim.SGD(model.parameters(), lr=1.)
    cosine = dict(cfg.param_scheduler[1], end=3)
    scheduler = PARAM_SCHEDULERS.build(
        cosine, default_args=dict(optimizer=optimizer, epoch_length=2))
    assert scheduler.T_max == 6
    path = tmp_path / 'made/mine.py'
    assert max(map(len, path.read_text().splitlines())) < 160
    again = call_tool('dataset_tools/own_data', drawn.folder, path)
    assert again.returncode == 1 and '--overwrite' in again.stderr


@pytest.mark.parametrize('name', [
    'small/mask_rcnn_fishnet_small', 'small/semantic_fpn_fishnet_small',
    'small/classifier_fishnet_small', 'shapes/mask_rcnn_fishnet_shapes',
    'shapes/semantic_fpn_fishnet_shapes', 'shapes/fishnet_tiny_shapes',
    'classification/fishnet_shapes',
    'classification/fishnet150_8xb32-coslr-200e_in1k'])
def test_schedules_follow_max_epochs(name):
    """Of three epochs of 50 steps, as MMEngine's runner fills in the end, the
    last step has next to nothing of the learning rate."""
    cfg = Config.fromfile(config_path(f'{name}.py'))
    schedulers = cfg.param_scheduler
    last = schedulers[-1] if isinstance(schedulers, list) else schedulers
    last = dict(last)
    last.setdefault('end', 3)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1., momentum=0.9)
    scheduler = PARAM_SCHEDULERS.build(
        last, default_args=dict(optimizer=optimizer, epoch_length=50))
    rates = []
    for _ in range(3 if not last.get('convert_to_iter_based') else 150):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    assert rates[-1] <= (0.011 if len(rates) > 3 else 0.26) * max(rates)
    assert rates[-1] == min(rates)


def edited(folder, **edits):
    """The annotations, changed by a function for each split."""
    for split, edit in edits.items():
        path = folder / f'annotations/instances_{split}2017.json'
        data = json.loads(path.read_text())
        edit(data)
        path.write_text(json.dumps(data))


def first(data, **changes):
    data['annotations'][0].update(changes)


def test_maps_in_colours(drawn, own_data, tmp_path):
    """Green is one as red is, though its number is small."""
    root = tmp_path / 'data'
    for picture, _ in drawn.splits['train']:
        drawn.copy(picture, root / 'JPEGImages' / picture.name)
        label = np.zeros((96, 96, 3), np.uint8)
        label[:40], label[50:] = (0, 128, 0), (0, 0, 128)
        path = root / f'SegmentationClass/{picture.stem}.png'
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), label)
    done, cfg = own_data(root)
    assert done.returncode == 0, done.stderr
    assert built(cfg).metainfo['classes'] == (
        'background', 'colour_0_128_0', 'colour_128_0_0')
    assert "'colour 0 0 0', 'colour 0 128 0', " in done.stdout


def test_small_objects_are_named_by_their_picture(drawn, own_data, tmp_path):
    layouts.yolo_roboflow(drawn, tmp_path / 'data')
    text = next((tmp_path / 'data/train/labels').glob('*.txt'))
    lines = text.read_text().splitlines()
    text.write_text('\n'.join([*lines, '0 0.5 0.5 0.001 0.2']))
    done, _ = own_data(tmp_path / 'data')
    assert f'{text.stem}.jpg: object {len(lines) + 1}' in done.stdout
    for path in (tmp_path / 'data').glob('*/labels/*.txt'):
        path.write_text('0 0.5 0.5 0.001 0.2\n' * 3)
    done, _ = own_data(tmp_path / 'data')
    assert done.returncode == 1
    assert 'a pixel wide and high at least' in done.stderr


@pytest.mark.parametrize('layout, place, name', [
    ('yolo_roboflow', 'valid', 'test'),
    ('roboflow_coco', 'valid', 'test'),
    ('maps', '*/val', 'test'),
    ('folders', 'val', 'test'),
])
def test_a_test_split_is_tested(drawn, own_data, tmp_path, layout, place,
                                name):
    """Its pictures are those of the test, and no others."""
    root = tmp_path / 'data'
    root.mkdir()
    layouts.LAYOUTS[layout](drawn, root)
    for val in root.glob(place):
        shutil.copytree(val, val.with_name(name))
    done, cfg = own_data(root)
    assert done.returncode == 0, done.stderr
    val, test = (built(cfg, part) for part in ('val', 'test'))
    places = [{Path(d.get_data_info(i)['img_path']).relative_to(root)
               for i in range(len(d))} for d in (val, test)]
    assert all(name in path.parts for path in places[1])
    assert not any(name in path.parts for path in places[0])
    evaluator = cfg.test_evaluator.get('ann_file')
    if evaluator:
        assert evaluator == test.ann_file != val.ann_file


@pytest.mark.parametrize('edit, words', [
    (lambda d: [i.pop('width') for i in d['images']], ''),
    (lambda d: d['annotations'][0].pop('bbox'), ''),
    (lambda d: first(d, area=None, iscrowd=None), ''),
    (lambda d: first(d, bbox=None, segmentation=[]), 'without a box'),
    (lambda d: first(d, bbox=[1, 1, 0.2, 9]), 'narrower or lower'),
    (lambda d: first(d, bbox=[900, 1, 20, 9]), 'outside of the picture'),
    (lambda d: first(d, image_id=999), 'not listed'),
    (lambda d: d['images'][0].update(file_name='gone.jpg'), 'missing'),
    (lambda d: first(d, segmentation=[[1, 1, 5]]), 'without an outline'),
    (lambda d: d['categories'].insert(
        0, dict(id=77, name='shape', supercategory='none')),
     "parent category 'shape' has no objects"),
    (lambda d: [a.update(bbox=[0, 0, .2, .2]) for a in d['annotations']],
     'error.*boxes cannot be used'),
    (lambda d: first(d, category_id=99), 'error.*category_id.*99'),
    (lambda d: d['categories'][1].update(name='star'), 'error.*name of its'),
    (lambda d: d['images'][0].pop('id'), 'error.*an id of its own'),
    (lambda d: d.update(annotations=[]), 'error.*no annotations'),
    (lambda d: d.update(images=3), 'error.*no images'),
])
def test_incomplete_records(drawn, own_data, tmp_path, edit, words):
    """Put right, or left out by name, or refused; never a traceback."""
    root = tmp_path / 'data'
    shutil.copytree(drawn.folder, root)
    edited(root, train=edit)
    done, cfg = own_data(root, '--train',
                         'annotations/instances_train2017.json', '--val',
                         root / 'annotations/instances_val2017.json')
    output = done.stdout + done.stderr
    assert re.search(words, output), output
    assert bool(done.returncode) == words.startswith('error'), output
    if cfg:
        assert len(built(cfg)) == 8 - ('missing' in words)
        assert tuple(built(cfg).metainfo['classes']) == STAR


def test_other_orders_and_background(drawn, own_data, tmp_path):
    """Classes are matched by name; pictures without objects are kept."""
    root = tmp_path / 'data'
    shutil.copytree(drawn.folder, root)
    emptied = []

    def without(data):
        emptied.extend(i['id'] for i in data['images'][:3])
        data['annotations'] = [
            a for a in data['annotations'] if a['image_id'] not in emptied]

    edited(root, train=without, val=lambda d: d['categories'].reverse())
    done, cfg = own_data(root)
    assert done.returncode == 0, done.stderr
    assert '8 pictures' in done.stdout and '3 without objects' in done.stdout
    dataset = built(cfg)
    assert len(dataset) == 8
    val = built(cfg, 'val')
    assert val.metainfo['classes'] == dataset.metainfo['classes']
    for i in range(len(val)):
        info = val.get_data_info(i)
        wanted = drawn.objects[drawn.like(cv2.imread(info['img_path']))]
        assert [x['bbox_label'] + 1 for x in info['instances']] == [
            a['category_id'] for a in wanted]


def test_broken_files(drawn, own_data, tmp_path):
    """Each format with what is damaged in it: counted, named, and trained
    without; a folder without labels is told from one with."""
    def fresh(layout):
        root = tmp_path / layout
        root.mkdir()
        layouts.LAYOUTS[layout](drawn, root)
        return root

    root = fresh('yolo_plain')
    texts = sorted((root / 'labels').glob('*.txt'))
    texts[0].write_text('0 0.5 0.5\n1 0.5 0.5 0.2 0.2\nfoo\n0 90 90 9 9\n')
    texts[1].unlink()
    (root / 'images/junk.jpg').write_text('junk')
    done, _ = own_data(root)
    assert "3 lines other than YOLO's" in done.stdout, done.stderr
    assert '1 without objects' in done.stdout
    assert '1 file unreadable as a picture' in done.stdout
    texts[2].write_text('7 0.5 0.5 0.2 0.2\n')
    done, _ = own_data(root)
    assert f'{texts[2].name}, line 1: class 7' in done.stderr

    root = fresh('labelme')
    texts = sorted(root.glob('*.json'))
    texts[0].write_text('{')
    texts[1].write_text(json.dumps(dict(
        json.loads(texts[1].read_text()), shapes=[3, dict(label='x')])))
    texts[2].unlink()
    done, _ = own_data(root)
    assert '1 file unreadable as JSON' in done.stdout, done.stderr
    assert '2 pictures without labels' in done.stdout

    root = fresh('voc')
    texts = sorted((root / 'Annotations').glob('*.xml'))
    texts[0].write_text('<annotation>')
    texts[1].write_text(texts[1].read_text().replace('<xmin>', '<x>', 1)
                        .replace('</xmin>', '</x>', 1))
    done, _ = own_data(root)
    assert '1 file unreadable as XML' in done.stdout, done.stderr
    assert '1 object without a name or a box' in done.stdout

    (tmp_path / 'bare').mkdir()
    done, _ = own_data(tmp_path / 'bare')
    assert 'holds no pictures' in done.stderr
    cv2.imwrite(str(tmp_path / 'bare/a.png'), np.zeros((9, 9, 3), np.uint8))
    done, _ = own_data(tmp_path / 'bare')
    assert 'no labels' in done.stderr and 'Pascal VOC' in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('layout', [
    'label_studio_coco', 'yolo_plain', 'yolo_roboflow', 'voc', 'labelme',
    'instance_maps', 'mask_each', 'maps', 'folders_without_split'])
def test_two_commands(drawn, own_data, call_tool, tmp_path, layout):
    """From the folder, as tools leave it, to an epoch with its best file."""
    root = tmp_path / layout
    root.mkdir()
    layouts.LAYOUTS[layout](drawn, root)
    own_data(root)
    done = call_tool('train', tmp_path / 'made/mine.py', '--work-dir',
                     tmp_path / 'run', '--cfg-options',
                     'train_cfg.max_epochs=1')
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / 'run').glob('best_*.pth'))


@pytest.mark.shared
@pytest.mark.skipif(
    not SHARED.is_dir(), reason='no data beside the repository')
def test_real_pictures(own_data):
    """Nuclei: used as they are, with the recipe that the page measured."""
    done, cfg = own_data(SHARED / 'nuclei')
    assert done.returncode == 0, done.stderr
    assert cfg.train_dataloader.dataset.ann_file == \
        'annotations/instances_train2017.json'
    assert cfg.train_pipeline[2].scale == (384, 384)
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (9, 3)
    assert cfg.model.rpn_head.anchor_generator.scales == [3]
    assert not cfg.get('custom_hooks')
