# Copyright (c) mmfishnet authors. All rights reserved.
"""A detector in one ONNX file finds what MMDetection's predict finds."""
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import set_random_seed
from PIL import Image

from mmfishnet.apis import whole_detector as whole

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / 'tools/onnx_detector.py'
# Larger, smaller, as large as the config's 128x128; not square.
SIZES = ((192, 150), (61, 300), (128, 128), (40, 52))
CLASSES = ('ring', 'square', 'triangle', 'star', 'cross', 'heart')


def config(**changes):
    cfg = Config.fromfile(ROOT / 'configs/shapes/mask_rcnn_fishnet_shapes.py')
    init_default_scope(cfg.default_scope)
    cfg.merge_from_dict({
        'model.backbone.init_cfg': None,
        # Boxes of less than a pixel have equal scores, in any order.
        'model.test_cfg.rpn.min_bbox_size': 4,
        **changes
    })
    return cfg


def detector(cfg):
    """Untrained, so that it finds many; their scores are well apart."""
    model = MODELS.build(cfg.model).eval()
    model.roi_head.bbox_head.fc_cls.weight.data *= 3
    model.cfg = cfg
    return model


def pictures():
    """Smooth, so that neighbouring boxes are not told apart by noise."""
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        small = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
        yield cv2.resize(small, (width, height))


def check_same(found, picture, model):
    """found (dict): What was found in a picture, masks in its size."""
    truth = inference_detector(model, picture).pred_instances
    assert len(truth) > 4
    assert found['labels'].tolist() == truth.labels.tolist()
    np.testing.assert_allclose(found['scores'], truth.scores, atol=2e-5)
    np.testing.assert_allclose(found['boxes'], truth.bboxes, atol=5e-3)
    if model.with_mask:
        other = found['masks'] != truth.masks.numpy()
        assert 0.01 < truth.masks.float().mean() < 0.99
        assert other.mean() < 1e-4


@pytest.mark.parametrize('size', [(48, 64), (200, 77), (301, 16), (7, 333)])
def test_resize_8_bits(size):
    """It is OpenCV's, to the bit."""
    rng = np.random.default_rng(0)
    for old in ((96, 128), (50, 41), (1, 9)):
        picture = rng.integers(0, 256, (*old, 3), dtype=np.uint8)
        found = whole.resize_8_bits(
            torch.from_numpy(picture), torch.tensor(old).double(),
            torch.tensor(size).double())
        assert (found.numpy() == cv2.resize(picture, size[::-1])).all()


@pytest.mark.parametrize('changes', [
    {},
    {
        'model.type': 'FasterRCNN',
        'model.roi_head.mask_head': None,
        'model.roi_head.mask_roi_extractor': None,
        'model.roi_head.bbox_head.reg_class_agnostic': False,
        'model.test_cfg.rpn.nms_pre': 30,
        'model.test_cfg.rcnn.nms.class_agnostic': True
    },
    {
        'model.rpn_head.loss_cls.use_sigmoid': False,
        'model.roi_head.mask_head.class_agnostic': True,
        'model.roi_head.bbox_roi_extractor.roi_layer.aligned': False,
        'model.test_cfg.rcnn.max_per_img': 7,
        'model.data_preprocessor.bgr_to_rgb': False,
        'model.data_preprocessor.pad_size_divisor': 1,
        'test_pipeline.1.keep_ratio': False
    },
])
def test_graph(changes):
    """What is exported is MMDetection's predict, with the settings of each
    part."""
    cfg = config(**changes)
    cfg.test_dataloader.dataset.pipeline = cfg.test_pipeline
    model = detector(cfg)
    graph = whole.WholeDetector(model, whole.find_resize(cfg.test_pipeline))
    paste = runpy.run_path(str(RUN))['paste']
    for picture in pictures():
        with torch.no_grad():
            outputs = [x.numpy() for x in graph(torch.from_numpy(picture))]
        found = dict(zip(('boxes', 'scores', 'labels', 'masks'), outputs))
        if model.with_mask:
            found['masks'] = paste(found['masks'], found['boxes'],
                                   picture.shape[:2], 0.5)
        check_same(found, picture, model)


@pytest.fixture(scope='module')
def exported(call_tool, tmp_path_factory):
    """A model, and the folder to which the tool exported it."""
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    folder = tmp_path_factory.mktemp('whole')
    set_random_seed(0)
    cfg = config()
    model = detector(cfg)
    cfg.dump(folder / 'config.py')
    torch.save(dict(state_dict=model.state_dict(),
                    meta=dict(dataset_meta=dict(classes=CLASSES))),
               folder / 'model.pth')
    done = call_tool('export', folder / 'config.py', folder / 'model.pth',
                     '--formats', 'detector', '--out-dir', folder)
    assert done.returncode == 0, done.stderr
    counts = re.findall(r'noise (\d+) objects, by MMDetection (\d+)',
                        done.stdout)
    assert len(counts) == 3
    assert all(0 < int(ours) == int(truth) for ours, truth in counts)
    return model, folder


@pytest.mark.slow
def test_file(exported, tmp_path):
    """Pictures of any size; what the file tells of itself; no objects."""
    onnx = pytest.importorskip('onnx')
    model, folder = exported
    run = runpy.run_path(str(folder / 'detector.py'))['Detector']
    find = run(folder / 'detector.onnx', threads=1)
    assert find.meta['classes'] == [*CLASSES]
    assert find.meta['scale'] == [128, 128]
    assert find.meta['mean'] == pytest.approx([123.675, 116.28, 103.53])
    for picture in pictures():
        check_same(find(picture), picture, model)

    # Where nothing reaches the threshold, there are no masks to compute.
    graph = onnx.load(folder / 'detector.onnx')
    limits = {node.input[1] for node in graph.graph.node
              if node.op_type == 'Greater'}
    limit, = (value for value in graph.graph.initializer
              if value.name in limits and onnx.numpy_helper.to_array(value)
              == np.float32(model.roi_head.test_cfg.score_thr))
    limit.CopyFrom(onnx.numpy_helper.from_array(np.array(1, np.float32),
                                                limit.name))
    onnx.save(graph, tmp_path / 'strict.onnx')
    found = run(tmp_path / 'strict.onnx')(next(pictures()))
    assert found['boxes'].shape == (0, 4)
    assert found['masks'].shape == (0, *SIZES[0])


@pytest.mark.slow
def test_alone(exported, tmp_path):
    """It runs where there is no torch, MMCV, MMDetection nor mmfishnet."""
    _, folder = exported
    picture = next(pictures())
    # As a camera that was turned leaves it.
    turned = Image.fromarray(np.rot90(picture)[..., ::-1].copy())
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / 'picture.png', exif=exif)
    code = (
        'import runpy, sys\n'
        'for name in ("torch", "torchvision", "mmengine", "mmcv", "mmdet", '
        '"mmfishnet", "cv2"):\n'
        '    sys.modules[name] = None\n'
        'sys.argv = sys.argv[1:]\n'
        'runpy.run_path(sys.argv[0], run_name="__main__")\n')
    environ = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run(
        [sys.executable, '-c', code, folder / 'detector.py',
         folder / 'detector.onnx', 'picture.png'],
        capture_output=True, text=True, env=environ, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    find = runpy.run_path(str(RUN))['Detector'](folder / 'detector.onnx')
    found = find(picture)
    rows = done.stdout.splitlines()
    assert len(rows) == len(found['boxes'])
    for row, label, score, mask in zip(rows, found['labels'], found['scores'],
                                       found['masks']):
        assert row.startswith(f'{CLASSES[label]}, score {score:.3f}, box ')
        assert row.endswith(f', pixels {mask.sum()}')


def test_mistakes_are_said(tmp_path, call_tool):
    pytest.importorskip('onnxruntime')
    done = call_tool('onnx_detector', tmp_path / 'no.onnx', 'a.png')
    assert done.stderr == f'error: there is no file {tmp_path}/no.onnx.\n'
    (tmp_path / 'detector.onnx').touch()
    done = call_tool('onnx_detector', tmp_path / 'detector.onnx', 'a.png')
    assert done.stderr == 'error: there is no file a.png.\n'


@pytest.mark.parametrize('changes, message', [
    ({'model.test_cfg.rcnn.nms.type': 'soft_nms'}, 'test_cfg.rcnn.nms is'),
    ({'model.roi_head.type': 'MaskScoringRoIHead',
      'model.roi_head.mask_iou_head': dict(
          type='MaskIoUHead', num_convs=1, in_channels=64, roi_feat_size=14,
          conv_out_channels=8, fc_out_channels=8, num_classes=6)},
     'roi_head is MaskScoringRoIHead instead of StandardRoIHead'),
])
def test_other_functions_are_refused(changes, message):
    model = MODELS.build(config(**changes).model)
    with pytest.raises(ValueError, match=message):
        whole.check_detector(model)


def test_other_pipelines_are_refused():
    pipeline = config().test_pipeline
    with pytest.raises(ValueError, match='has Normalize, which'):
        whole.find_resize([*pipeline, dict(type='Normalize')])
    with pytest.raises(ValueError, match="backend='cv2'"):
        whole.find_resize([dict(type='mmdet.Resize', scale_factor=0.5)])
