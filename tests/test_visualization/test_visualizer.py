import mmcv
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import VISUALIZERS
from mmengine.structures import InstanceData

import mmfishnet  # noqa: F401


def test_truth_beside_what_was_found(tmp_path):
    visualizer = VISUALIZERS.build(dict(
        type='mmfishnet.InstanceVisualizer', name='test_instance_visualizer'))
    visualizer.dataset_meta = dict(classes=('a', 'b'))
    sample = DetDataSample(
        gt_instances=InstanceData(
            bboxes=torch.tensor([[8., 8, 40, 40]]), labels=torch.tensor([0])),
        pred_instances=InstanceData(
            bboxes=torch.tensor([[8., 8, 40, 40], [50., 50, 60, 60]]),
            labels=torch.tensor([1, 0]),
            scores=torch.tensor([0.9, 0.1])))
    image = np.full((64, 64, 3), 90, np.uint8)
    out = tmp_path / 'pictures/one.png'
    visualizer.add_datasample('one', image, sample, out_file=str(out))
    drawn = mmcv.imread(str(out))
    assert drawn.shape[1] > 1.9 * drawn.shape[0]
    np.testing.assert_array_equal(drawn[..., ::-1], visualizer.get_image())
    # What has a low score is not drawn: that corner is as it was.
    scale = drawn.shape[1] // 2 // 64
    corner = drawn[-16 * scale:-2 * scale, -16 * scale:-2 * scale]
    assert (corner == 90).all()
    # The prediction alone.
    visualizer.add_datasample(
        'one', image, sample, draw_gt=False, out_file=str(out))
    height, width = mmcv.imread(str(out)).shape[:2]
    assert height == width
