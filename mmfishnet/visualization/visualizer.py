# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

import mmcv
import numpy as np
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.dist import master_only

from ..registry import VISUALIZERS
from .instances import beside, draw_instances


@VISUALIZERS.register_module()
class InstanceVisualizer(DetLocalVisualizer):
    """MMDetection's visualizer with our pictures of instances.

    The truth beside the prediction, small objects in sight, labels that do
    not cover each other. Panoptic results are drawn as MMDetection does.

    Args:
        *args: As of :class:`mmdet.visualization.DetLocalVisualizer`.
        **kwargs: As of :class:`mmdet.visualization.DetLocalVisualizer`.

    Example:
        >>> visualizer = dict(type='mmfishnet.InstanceVisualizer')
    """

    @master_only
    def add_datasample(self,
                       name: str,
                       image: np.ndarray,
                       data_sample: DetDataSample | None = None,
                       draw_gt: bool = True,
                       draw_pred: bool = True,
                       show: bool = False,
                       wait_time: float = 0,
                       out_file: str | None = None,
                       pred_score_thr: float = 0.3,
                       step: int = 0) -> None:
        """Draw truth and prediction side by side.

        Args:
            name (str): Name of the picture.
            image (np.ndarray): RGB, (H, W, 3), uint8.
            data_sample (DetDataSample, optional): What to draw. Defaults to
                None.
            draw_gt (bool): Whether to draw the truth. Defaults to True.
            draw_pred (bool): Whether to draw the prediction. Defaults to
                True.
            show (bool): Whether to show it in a window. Defaults to False.
            wait_time (float): Seconds that the window stays. Defaults to 0.
            out_file (str, optional): Where to save it. Defaults to None.
            pred_score_thr (float): Least score that is drawn. Defaults to
                0.3.
            step (int): Step for the backends. Defaults to 0.
        """
        parts = []
        if data_sample is not None:
            if 'pred_panoptic_seg' in data_sample:
                super().add_datasample(name, image, data_sample, draw_gt,
                                       draw_pred, show, wait_time, out_file,
                                       pred_score_thr, step)
                return
            classes = self.dataset_meta.get('classes')
            if draw_gt and 'gt_instances' in data_sample:
                parts.append((data_sample.gt_instances, 'truth'))
            if draw_pred and 'pred_instances' in data_sample:
                found = data_sample.pred_instances.cpu()
                found = found[found.scores > pred_score_thr]
                parts.append((found, 'found'))
            parts = [
                draw_instances(image, instances, classes,
                               title if draw_gt else '')
                for instances, title in parts
            ]
        drawn = beside(*parts) if parts else image
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(drawn[..., ::-1], out_file)
        else:
            self.add_image(name, drawn, step)
