# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

import mmcv
from mmdet.visualization import DetLocalVisualizer
from mmengine.dist import master_only

from ..registry import VISUALIZERS
from .instances import beside, draw_instances


@VISUALIZERS.register_module()
class InstanceVisualizer(DetLocalVisualizer):
    """MMDetection's visualizer with our pictures of instances.

    The truth beside the prediction, small objects in sight, labels that do
    not cover each other. Panoptic results are drawn as MMDetection does.
    Arguments are those of :class:`mmdet.visualization.DetLocalVisualizer`.

    Example:
        >>> visualizer = dict(type='mmfishnet.InstanceVisualizer')
    """

    @master_only
    def add_datasample(self, name, image, data_sample=None, draw_gt=True,
                       draw_pred=True, show=False, wait_time=0, out_file=None,
                       pred_score_thr=0.3, step=0) -> None:
        """Draw truth and prediction side by side.

        Arguments are those of MMDetection's method of this name; objects
        whose score is ``pred_score_thr`` or less are not drawn.
        """
        sample = {} if data_sample is None else data_sample
        if 'pred_panoptic_seg' in sample:
            super().add_datasample(name, image, data_sample, draw_gt,
                                   draw_pred, show, wait_time, out_file,
                                   pred_score_thr, step)
            return
        parts, classes = [], (self.dataset_meta or {}).get('classes')
        if draw_gt and 'gt_instances' in sample:
            parts.append((sample.gt_instances, classes, 'truth'))
        if draw_pred and 'pred_instances' in sample:
            found = sample.pred_instances.cpu()
            parts.append((found[found.scores > pred_score_thr], classes,
                          'found' if draw_gt else ''))
        drawn = beside(*(draw_instances(image, *part) for part in parts)
                       ) if parts else image
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(drawn[..., ::-1], out_file)
        else:
            self.add_image(name, drawn, step)
