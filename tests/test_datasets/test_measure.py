"""Settings that a data set tells itself, and the config that holds them."""
import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

from mmfishnet.datasets.measure import measure
from mmfishnet.datasets.shapes import draw_coco

SHARED = Path(__file__).resolve().parents[3] / 'shared/data'


def coco(path, count=40, objects=2, side=8, size=(320, 240), **changes):
    """Square objects of one size, `objects` of them in every image."""
    data = dict(
        images=[
            dict(id=i, width=size[0], height=size[1], file_name=f'{i}.jpg')
            for i in range(count)
        ],
        annotations=[
            dict(
                id=i * objects + j + 1,
                image_id=i,
                category_id=7,
                bbox=[3, 3, side, side],
                area=side**2,
                iscrowd=0,
                segmentation=[[3, 3, 3 + side, 3, 3 + side, 3 + side]])
            for i in range(count) for j in range(objects)
        ],
        categories=[dict(id=9, name='b'), dict(id=7, name='a')])
    path.write_text(json.dumps({**data, **changes}))
    return path


def test_what_the_numbers_follow_from(tmp_path):
    few = measure(coco(tmp_path / 'few.json'))
    assert few.classes == ('a', 'b')
    assert few.num_images == 40
    assert few.side == 320
    # Most are small, but the large ones lose no pixels either.
    mixed = coco(tmp_path / 'mixed.json')
    data = json.loads(mixed.read_text())
    for image in data['images'][:8]:
        image.update(width=400)
    mixed.write_text(json.dumps(data))
    assert measure(mixed).side == 416
    assert few.objects == 2
    # The second anchor size is the objects' own: scale * 4 * 2 pixels.
    large = measure(coco(tmp_path / 'large.json', side=40))
    assert large.anchor_scale * 4 * 2 == 40
    assert few.anchor_scale == 2  # no smaller than two strides
    # Pictures larger than 512 are shown to the network at that size.
    huge = measure(
        coco(tmp_path / 'huge.json', side=80, size=(1000, 1024)))
    assert huge.side == 512
    assert huge.anchor_scale * 4 * 2 == 40
    # As many pictures are seen in all, within limits; more steps, more rate.
    many = measure(coco(tmp_path / 'many.json', count=360))
    assert (few.epochs, many.epochs) == (90, 10)
    assert many.epochs * many.num_images == 3600
    assert measure(coco(tmp_path / 'm.json', count=4000)).epochs == 8
    assert many.lr == 2.4e-3
    assert measure(coco(tmp_path / 's.json', count=8)).lr < 1.2e-3


@pytest.mark.parametrize('changes, words', [
    (dict(images=[]), 'has no images'),
    (dict(categories=[]), 'has no categories'),
    (dict(annotations=[
        dict(id=1, image_id=0, category_id=7, bbox=[0, 0, 0, 5], iscrowd=0)
    ]), 'no object with a box'),
    (dict(annotations=[
        dict(id=1, image_id=0, category_id=7, bbox=[3, 3, 8, 8])
    ]), 'boxes and no outlines'),
])
def test_refusals(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        measure(coco(tmp_path / 'bad.json', **changes))
    with pytest.raises(FileNotFoundError, match='no annotation file'):
        measure(tmp_path / 'nowhere.json')


def test_config_of_drawn_shapes(tmp_path, call_tool):
    """The tool's config reads the data set and builds the model for it."""
    root = tmp_path / 'white space'
    draw_coco(root, train=4, val=2, size=96)
    path = tmp_path / 'made/mine.py'
    result = call_tool('dataset_tools/own_data', root, path)
    assert result.returncode == 0, result.stderr
    assert max(map(len, path.read_text().splitlines())) < 120
    cfg = Config.fromfile(path)
    assert Config.fromstring(cfg.pretty_text, '.py').to_dict() == cfg.to_dict()
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(dataset) == 4
    assert max(dataset[0]['inputs'].shape) == 96
    classes = dataset.metainfo['classes']
    assert cfg.model.roi_head.mask_head.num_classes == len(classes)
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[1].T_max == 100
    # The channels that the fish gives are those that the neck reads.
    model = MODELS.build(cfg.model)
    assert list(model.backbone.out_channels) == cfg.model.neck.in_channels
    widths = [
        module.conv2.in_channels
        for name, module in model.backbone.named_modules()
        if hasattr(module, 'conv2')
    ]
    assert min(widths) >= 8
    parameters = sum(p.numel() for p in model.backbone.parameters())
    assert round(parameters / 1e6, 1) == 0.7  # as the documentation says

    # Perhaps it was changed by hand.
    result = call_tool('dataset_tools/own_data', root, path)
    assert result.returncode == 1 and '--overwrite' in result.stderr
    result = call_tool('dataset_tools/own_data', root, path, '--overwrite',
                       '--val-images', 'elsewhere')
    assert result.returncode == 1
    assert 'there is no folder' in result.stderr


@pytest.mark.shared
@pytest.mark.skipif(
    not SHARED.is_dir(), reason='no data beside the repository')
@pytest.mark.parametrize('name', ['nuclei', 'coco_tiny'])
def test_config_of_real_pictures(tmp_path, call_tool, name):
    path = tmp_path / 'mine.py'
    result = call_tool('dataset_tools/own_data', SHARED / name, path)
    assert result.returncode == 0, result.stderr
    cfg = Config.fromfile(path)
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    truth = json.loads(
        (SHARED / name / 'annotations/instances_train2017.json').read_text())
    assert len(dataset.metainfo['classes']) == len(truth['categories'])
    # Every object has an anchor of about its size, half of them smaller ones
    # than the second.
    anchors = [
        cfg.model.rpn_head.anchor_generator.scales[0] * 4 * 2**i
        for i in range(5)
    ]
    assert anchors[0] >= 8 and 128 <= anchors[-1] <= 512
