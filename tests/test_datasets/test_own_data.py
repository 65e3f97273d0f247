"""Whatever labels there are: the config that own_data.py writes for them."""
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, PARAM_SCHEDULERS, init_default_scope

from config_texts import left_and_right
from mmfishnet.config import config_path
from mmfishnet.datasets import CLASSES as SHAPES
from picture_folder import split_of
from recipes import choose_recipe, measure_objects

from . import layouts
from .conftest import built, read

SHARED = Path(__file__).resolve().parents[3] / 'shared/data'

# Layout, kind of model, classes, and where its val is, to be copied as a test;
# None where own_data.py has to make the split.
STAR = layouts.CLASSES
SORTED = ('cross', 'heart', 'star')
ROWS = dict(
    roboflow_coco=('MaskRCNN', STAR, 'valid'),
    cvat_coco=('MaskRCNN', STAR, None),
    label_studio_coco=('MaskRCNN', STAR, None),
    yolo_roboflow=('FasterRCNN', STAR, 'valid'),
    yolo_ultralytics=('MaskRCNN', STAR, ''),
    yolo_plain=('FasterRCNN', STAR, None),
    voc=('FasterRCNN', SORTED, ''),
    labelme=('MaskRCNN', SORTED, None),
    instance_maps=('MaskRCNN', ('object', ), ''),
    mask_each=('MaskRCNN', ('object', ), None),
    maps=('EncoderDecoder', ('background', 'class_1', 'class_2', 'class_3'),
          '*/val'),
    maps_0_255=('EncoderDecoder', ('background', 'object'), None),
    folders=('ImageClassifier', SHAPES, 'val'),
    folders_without_split=('ImageClassifier', SHAPES, None))


@pytest.mark.parametrize('layout', ROWS)
def test_every_layout(drawn, laid_out, layout):
    """What is found, what is chosen, and that the data set that MMDetection,
    MMPretrain or MMSegmentation builds holds what was drawn."""
    kind, classes, place = ROWS[layout]
    root = laid_out(layout)
    for val in root.glob(place) if place else ():
        shutil.copytree(val, val.with_name('test'))
    said, cfg = read(root)
    assert ('no split was given' in said) == (place is None)
    assert cfg.model.type == kind
    datasets = [built(cfg), built(cfg, 'val')]
    assert tuple(datasets[0].metainfo['classes']) == classes
    assert datasets[0][0]['inputs'].ndim == 3  # the pipeline runs
    pictures = [d.get_data_info(i) for d in datasets for i in range(len(d))]
    if place:
        test = built(cfg, 'test')
        tested = {test.get_data_info(i)['img_path'] for i in range(len(test))}
        assert len(test) == len(datasets[1])
        assert all('test' in Path(path).parts for path in tested)
        assert not tested & {info['img_path'] for info in pictures}
        evaluator = cfg.test_evaluator.get('ann_file')
        assert evaluator in (None, test.ann_file) != datasets[1].ann_file
    if kind == 'ImageClassifier':
        assert len(pictures) == 36
        assert all(classes[info['gt_label']] == Path(
            info['img_path']).parent.name for info in pictures)
        return
    truth = [sample for split in drawn.splits for sample in drawn.splits[split]
             if split == 'train' or place is not None]
    assert len(pictures) == len(truth)
    for info in pictures:
        picture = drawn.like(cv2.imread(info['img_path']))
        if kind == 'EncoderDecoder':
            semantic = drawn.semantic(picture)
            found = cv2.imread(info['seg_map_path'], -1)
            assert (found == (semantic > 0 if layout == 'maps_0_255'
                              else semantic)).all()
            continue
        wanted, found = drawn.objects[picture], info['instances']
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


@pytest.mark.parametrize('split, names', [
    ('train', ['trainingset/a.json', 'training_set', 'Train_2017', 'trainset',
               'trainannot', 'instances_train2017.json', 'trainval',
               'test/train.txt', 'train/images/7.jpg']),
    ('val', ['validation_set', 'valset', 'val2017', 'valid/images', 'dev',
             'train/images/val_1.json']),
    ('test', ['testset/annotations.json', 'testing', 'test_2017', 'testimages',
              'val/test/5.png']),
    ('', ['trainer', 'values/a.jpg', 'valve', 'valley2', 'testimony', 'device',
          'strain', 'contest', 'trains', 'images/1.jpg'])])
def test_names_of_splits(split, names):
    """In one place, for all layouts."""
    assert [split_of(name) for name in names] == [split] * len(names)


@pytest.mark.parametrize('layout, renamed', [
    ('roboflow_coco', {'train': 'trainingset', 'valid': 'testset'}),
    ('maps', {}),
    ('folders', {f'{split}/{name}': f'{split}/{side}_door'
                 for split in ('train', 'val')
                 for name, side in (('leaf', 'Left'), ('star', 'right'))})])
def test_left_and_right(laid_out, layout, renamed):
    """A flip makes a left one right: there is none, and the rest is there."""
    root = laid_out(layout)
    for old, new in renamed.items():
        (root / old).rename(root / new)
    for path in root.glob('*set/_annotations.coco.json'):
        text = path.read_text().replace('"star"', '"back_left_door"')
        path.with_name('annotations.json').write_text(
            text.replace('"cross"', '"back_right_door"'))
        path.unlink()
    said, cfg = read(root, *(
        ['--classes', 'ground', 'left_x', 'x', 'right_x'] if layout == 'maps'
        else []))
    line, = (line for line in said.splitlines() if 'without flips' in line)
    assert 'left' in line.lower() and 'right' in line
    base = Config.fromfile(config_path({
        'maps': 'small/semantic_fpn_fishnet_small.py',
        'folders': 'small/classifier_fishnet_small.py'
    }.get(layout, 'small/mask_rcnn_fishnet_small.py')))
    steps = [step['type'] for step in base.train_pipeline]
    steps.remove('RandomFlip')
    dataset = cfg.train_dataloader.dataset
    assert [step['type'] for step in dataset.pipeline] == steps
    if layout == 'roboflow_coco':
        assert 'no split' not in said
        assert 'testset' in cfg.val_dataloader.dataset.ann_file


def test_classes_that_a_flip_swaps():
    assert left_and_right([
        'left_mirror', 'right_mirror', 'hood', 'MirrorLeft', 'mirrorRight',
        'bright', 'left', 'left_lamp']) == [
        'left_mirror', 'right_mirror', 'MirrorLeft', 'mirrorRight']


def test_recipe():
    """Of how many pictures, how large, and what lies in them."""

    def objects(counts, side, size):
        box = dict(bbox=[3, 3, side, side], iscrowd=0)
        crowd = dict(bbox=[0, 0, 500, 500], iscrowd=1)
        return [('a.jpg', (size, size // 2), [box] * n + [crowd])
                for n in counts]

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


def test_small_models(drawn, tmp_path, call_tool):
    """The channels fit, the fish is as large as the documentation says, what
    the tool wrote is kept, and a shorter training has a shorter cosine."""
    path = tmp_path / 'made/mine.py'
    done = call_tool('dataset_tools/own_data', drawn.folder, path)
    assert done.returncode == 0, done.stderr
    cfg = Config.fromfile(path)
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    assert list(model.backbone.out_channels) == cfg.model.neck.in_channels
    assert round(sum(p.numel() for p in model.backbone.parameters()) / 1e6,
                 1) == 0.7
    # COCO's files are used where they lie.
    assert [*drawn.folder.rglob('own_data_*')] == []
    assert cfg.train_cfg.max_epochs == 100
    assert cfg.custom_hooks[0].type == 'EarlyStoppingHook'
    best = cfg.default_hooks.checkpoint.save_best
    assert cfg.custom_hooks[0].monitor == best == 'coco/segm_mAP'
    assert max(map(len, path.read_text().splitlines())) < 160
    again = call_tool('dataset_tools/own_data', drawn.folder, path)
    assert again.returncode == 1 and '--overwrite' in again.stderr
    assert 'Traceback' not in again.stderr


@pytest.mark.parametrize('name', [
    'small/mask_rcnn_fishnet_small', 'small/semantic_fpn_fishnet_small',
    'small/classifier_fishnet_small', 'shapes/mask_rcnn_fishnet_shapes',
    'shapes/semantic_fpn_fishnet_shapes', 'shapes/fishnet_tiny_shapes',
    'classification/fishnet_shapes',
    'classification/fishnet150_8xb32-coslr-200e_in1k'])
def test_schedules_follow_max_epochs(name):
    """Of three epochs of 50 steps, as MMEngine's runner fills in the end, the
    last step has next to nothing of the learning rate."""
    schedulers = Config.fromfile(config_path(f'{name}.py')).param_scheduler
    last = schedulers[-1] if isinstance(schedulers, list) else schedulers
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.)
    scheduler = PARAM_SCHEDULERS.build(
        dict(dict(end=3), **last),
        default_args=dict(optimizer=optimizer, epoch_length=50))
    rates = []
    for _ in range(150 if last.get('convert_to_iter_based') else 3):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    assert rates[-1] <= (0.011 if len(rates) > 3 else 0.26) * max(rates)
    assert rates[-1] == min(rates)


@pytest.mark.slow
def test_two_commands(laid_out, call_tool, tmp_path):
    """From the folder to an epoch with its best file: of maps, since a
    detector is trained by the tutorial, and a classifier by the study of
    photographs; what all layouts come to is read above."""
    done = call_tool('dataset_tools/own_data', laid_out('maps'),
                     tmp_path / 'mine.py')
    assert done.returncode == 0, done.stderr
    done = call_tool('train', tmp_path / 'mine.py', '--work-dir',
                     tmp_path / 'run', '--cfg-options',
                     'train_cfg.max_epochs=1')
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / 'run').glob('best_*.pth'))


@pytest.mark.shared
@pytest.mark.skipif(
    not SHARED.is_dir(), reason='no data beside the repository')
def test_real_pictures(tmp_path):
    """Nuclei: used as they are, with the recipe that the page measured."""
    _, cfg = read(SHARED / 'nuclei', '--labels-dir', tmp_path)
    assert cfg.train_dataloader.dataset.ann_file == \
        'annotations/instances_train2017.json'
    assert cfg.train_pipeline[2].scale == (384, 384)
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (9, 3)
    assert cfg.model.rpn_head.anchor_generator.scales == [3]
    assert not cfg.get('custom_hooks')
