import warnings

import cv2
import numpy as np
import pytest
from mmengine.structures import InstanceData

from mmfishnet.visualization import (
    beside,
    draw_instances,
    draw_pixels,
    draw_scores,
)
from mmfishnet.visualization.fonts import font_file, written
from mmfishnet.visualization.instances import _place_labels, instance_colors


def discs(centers, radius, size=128):
    """Discs as masks with their boxes."""
    masks = [cv2.circle(np.zeros((size, size), np.uint8), center, radius, 1,
                        -1) for center in centers]
    boxes = [(x - radius, y - radius, x + radius + 1, y + radius + 1)
             for x, y in centers]
    return InstanceData(
        masks=np.array(masks, bool), bboxes=np.array(boxes, float),
        labels=np.zeros(len(centers), int),
        scores=np.full(len(centers), 0.5))


def grey(size=128):
    return np.full((size, size, 3), 120, np.uint8)


def test_small_objects_stay_visible_and_large_ones_are_tinted():
    """Not one pixel inside a small object is painted over, labels and all."""
    objects = discs([(20, 20), (40, 64), (100, 90)], 2)
    drawn = draw_instances(grey(), objects, ['dot'], legend=False)
    scale = len(drawn) // 128
    for mask in objects.masks:
        inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3)))
        inside = np.kron(inside, np.ones((scale, scale))).astype(bool)
        assert (drawn[inside] == 120).all()
        # The outline is there: the object can be told from the picture.
        ring = np.kron(
            cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) - mask,
            np.ones((scale, scale))).astype(bool)
        assert (drawn[ring] != 120).any()

    # The small one lies on the large one.
    objects = InstanceData.cat([discs([(64, 64)], 3), discs([(64, 64)], 50)])
    drawn = draw_instances(grey(), objects, ['disc'], legend=False)
    assert not np.array_equal(drawn[64 * scale, 30 * scale], [120] * 3)
    outline = (drawn == instance_colors([0, 0])[0]).all(-1)
    assert outline[56 * scale:72 * scale, 56 * scale:72 * scale].any()


@pytest.mark.parametrize('seed', range(5))
def test_labels_cover_neither_each_other_nor_small_objects(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 700, (18, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, 200, (18, 2))],
                           1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    places = _place_labels(['nucleus 98%'] * 18, boxes, np.argsort(-areas),
                           (768, 768), 14)
    places = [place for place in places if place is not None]
    assert len(places) >= 12
    canvas = np.zeros((768, 768), int)
    assert (np.array(places) >= 0).all() and (np.array(places) <= 768).all()
    small = boxes[(boxes[:, 2:] - boxes[:, :2]).min(1) < 72]
    for kind in places, small:
        for x1, y1, x2, y2 in np.array(kind, int):
            inside = canvas[y1 + 1:y2 - 1, x1 + 1:x2 - 1]
            assert not inside.any()
            inside += kind is places


def test_a_legend_where_there_are_many():
    centers = [(x, y) for x in range(8, 128, 16) for y in range(8, 128, 16)]
    drawn = draw_instances(grey(), discs(centers, 1), ['dot'])
    few = draw_instances(grey(), discs(centers[:4], 1), ['dot'])
    assert few.shape[0] == few.shape[1] < drawn.shape[0]
    assert drawn.shape[1] == few.shape[1]
    # The picture itself holds no label: outlines are its only colours.
    colors = np.unique(drawn[:few.shape[0]].reshape(-1, 3), axis=0)
    assert set(map(tuple, colors)) <= {
        (120, 120, 120), *map(tuple, instance_colors([0] * len(centers)))}


def test_colours():
    """One an instance; with many classes, hues of their own."""
    assert len(np.unique(instance_colors([0] * 30), axis=0)) == 30
    labels = [0, 1, 2, 0, 1, 2]
    colors = instance_colors(labels, by_class=True)[:, None]
    hues = cv2.cvtColor(colors, cv2.COLOR_RGB2HSV)[:, 0, 0].astype(int)
    for label in range(3):
        a, b = hues[np.array(labels) == label]
        assert abs(a - b) <= 2
    assert min(abs(hues[0] - hues[1]), abs(hues[1] - hues[2])) > 20


def test_boxes_alone_and_nothing():
    boxes = InstanceData(
        bboxes=np.array([[10., 10, 60, 70]]), labels=np.array([1]))
    drawn = draw_instances(grey(), boxes, ['a', 'b'], title='truth')
    assert drawn.shape[0] > drawn.shape[1]
    nothing = InstanceData(bboxes=np.zeros((0, 4)), labels=np.zeros(0, int))
    plain = draw_instances(grey(), nothing, ['a'])
    assert (plain == 120).all()
    pair = beside(drawn, plain)
    assert pair.shape == (drawn.shape[0],
                          drawn.shape[1] + plain.shape[1] + 8, 3)


def test_scores():
    scores = np.array([0.1, 0.7, 0.2])
    drawn = draw_scores(grey(), scores, ['a', 'b', 'c'])
    assert (drawn[:drawn.shape[1]] == 120).all()
    # The bar of the best is as long as its score says.
    bar = (drawn[drawn.shape[1]:] == (255, 214, 165)).all(-1).any(0)
    assert bar.mean() == pytest.approx(0.7, abs=0.02)


def test_class_names_in_any_script():
    """Fonts that matplotlib brings along have letters that DejaVu lacks."""
    script = '\U0001d49c'
    assert 'DejaVuSans' in font_file('ring')
    assert 'DejaVuSans.' not in font_file(script)
    names = ('ring', '\U0010fffd', script)
    with pytest.warns(UserWarning, match='no font of this system'):
        assert written(names) == ('ring', 'class 1', script)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        written(names)  # said once
    boxes = InstanceData(
        bboxes=np.array([[10., 30, 100, 110]]), labels=np.array([2]))
    drawn = draw_instances(grey(), boxes, names)
    assert not np.array_equal(drawn, draw_instances(grey(), boxes, 'abc'))


def test_pixels():
    pixels = np.zeros((128, 128), np.uint8)
    pixels[32:96, 32:96], pixels[:, 120:] = 1, 255
    drawn = draw_pixels(grey(), pixels, ('background', 'square'))
    height, width = drawn.shape[:2]
    scale = width // 128
    assert height > width  # a legend
    assert (drawn[:20 * scale, :20 * scale] == 120).all()
    assert (drawn[:20 * scale, -6 * scale:] == 120).all()
    inside = drawn[60 * scale:70 * scale, 60 * scale:70 * scale]
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) == 1
    assert (inside != 120).any()
