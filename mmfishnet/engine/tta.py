# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

import torch
from mmcv.ops import batched_nms
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from ..registry import MODELS

_FLIPPED_DIMS = dict(horizontal=(2, ), vertical=(1, ), diagonal=(1, 2))


@MODELS.register_module()
class MaskTTAModel(DetTTAModel):
    """MMDetection's test-time augmentation, for instance masks too.

    MMDetection merges the boxes of flipped and rescaled views by non-maximum
    suppression and refuses masks. Here every box that survives keeps the
    mask that was predicted with it, turned back to the image.

    Args:
        tta_cfg (dict): ``nms`` (config of the suppression) and
            ``max_per_img``.
        **kwargs: As of :class:`mmengine.model.BaseTTAModel`.
    """

    def _merge_single_sample(
            self, data_samples: list[DetDataSample]) -> DetDataSample:
        if 'pred_instances' not in data_samples[0]:
            found = [k for k in data_samples[0].keys() if 'pred' in k]
            raise ValueError(
                'MaskTTAModel merges predicted instances, and this model '
                f'predicts {", ".join(found) or "none"}.')
        views = [sample.pred_instances for sample in data_samples]
        if 'masks' not in views[0]:
            return super()._merge_single_sample(data_samples)

        bboxes, scores = self.merge_aug_bboxes(
            [view.bboxes for view in views], [view.scores for view in views],
            [sample.metainfo for sample in data_samples])
        labels = torch.cat([view.labels for view in views])
        masks = torch.cat([
            sample.pred_instances.masks.flip(
                _FLIPPED_DIMS[sample.flip_direction] if sample.flip else ())
            for sample in data_samples
        ])
        merged = data_samples[0]
        if len(bboxes) > 0:
            dets, kept = batched_nms(bboxes, scores, labels, self.tta_cfg.nms)
            limit = self.tta_cfg.max_per_img
            dets, kept = dets[:limit], kept[:limit]
            merged.pred_instances = InstanceData(
                bboxes=dets[:, :4],
                scores=dets[:, 4],
                labels=labels[kept],
                masks=masks[kept])
        return merged
