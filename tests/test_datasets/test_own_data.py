"""Whatever labels there are: the config that own_data.py writes for them."""
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import (
    MODELS,
    PARAM_SCHEDULERS,
    init_default_scope,
)

from mmfishnet.config import config_path
from mmfishnet.datasets import CLASSES as SHAPES
from recipes import choose_recipe, measure_objects

from . import layouts
from .conftest import built

SHARED = Path(__file__).resolve().parents[3] / 'shared/data'

# Layout, kind of model, classes, whether own_data.py has to make the split.
STAR = layouts.CLASSES
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
