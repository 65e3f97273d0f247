# Copyright (c) mmfishnet authors. All rights reserved.
"""A whole detector of MMDetection as one ONNX file, from picture to objects.

Faster and Mask R-CNN. The model's own backbone, neck, heads, anchors and box
coders are called. What lies between them asks in MMDetection how many boxes
there are, which a graph cannot; it is written here without asking.
"""
from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from mmcv.ops import RoIPool
from mmcv.transforms import BaseTransform
from mmdet import models
from mmengine.registry import TRANSFORMS
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.ops import nms, roi_align

from ..kinds import type_name
from ..models.built import image_channels
from ..whole_file import whole_file
from .export import exporting, need

# The parts whose work between the networks is done here, and the names that
# this work has there: a class with methods of its own by these names is
# another function.
PARTS = {
    '': (models.TwoStageDetector, 'predict'),
    'data_preprocessor': (models.DetDataPreprocessor, 'forward'),
    'rpn_head': (models.RPNHead, 'predict'),
    'roi_head': (models.StandardRoIHead, 'predict'),
    'roi_head.bbox_head': (models.BBoxHead, 'predict'),
    'roi_head.bbox_roi_extractor': (models.SingleRoIExtractor, 'forward'),
    'roi_head.mask_head': (models.FCNMaskHead, 'predict'),
    'roi_head.mask_roi_extractor': (models.SingleRoIExtractor, 'forward'),
}
NMS_SETTINGS = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}


def find_resize(pipeline: Sequence[dict]) -> BaseTransform | None:
    """The ``Resize`` of a test pipeline, or None if it has none.

    Args:
        pipeline (Sequence[dict]): Configs of transforms.

    Raises:
        ValueError: If more is done to a picture than reading and resizing it.
    """
    resize = None
    for cfg in pipeline:
        name = type_name(cfg)
        if name == 'Resize' and resize is None:
            resize = TRANSFORMS.build(cfg)
            how = resize.backend, resize.interpolation
            if resize.scale is None or how != ('cv2', 'bilinear'):
                raise ValueError(
                    f'the test pipeline has {cfg}; a detector in one file '
                    "resizes to a scale, with backend='cv2' and "
                    "interpolation='bilinear'.")
        elif not name.startswith('Load') and name != 'PackDetInputs':
            raise ValueError(
                f'the test pipeline has {name}, which a detector in one file '
                'cannot do: it resizes once, by Resize; normalising and '
                "padding are the data_preprocessor's.")
    return resize


def check_detector(model: nn.Module) -> None:
    """Raise a ValueError that names the part of a model, if any, that computes
    something else than :class:`WholeDetector` does."""
    for wrong in _differences(model):
        raise ValueError(
            f'{type(model).__name__} does not go into one file: {wrong}. '
            'Faster and Mask R-CNN do, with an FPN; of other models the '
            'backbone, by --formats onnx.')


def _differences(model: nn.Module) -> Iterator[str]:
    for path, (cls, word) in PARTS.items():
        if 'mask' in path and not model.roi_head.with_mask:
            continue
        part = model
        for name in path.split('.') if path else ():
            part = getattr(part, name, None)
        if not isinstance(part, cls) or any(
                word in name and
                getattr(type(part), name) is not getattr(cls, name)
                for name in dir(cls)):
            yield (f'{path or "the model"} is {type(part).__name__} instead '
                   f'of {cls.__name__}')
    roi = model.roi_head
    if roi.with_shared_head:
        yield 'roi_head has a shared head'
    if not roi.bbox_head.with_reg or roi.bbox_head.custom_cls_channels:
        yield 'bbox_head has no boxes, or a loss with scores of its own'
    for layer in roi.modules():
        if isinstance(layer, RoIPool) or vars(layer).get('pool_mode') == 'max':
            yield f"roi_layer is {layer} instead of RoIAlign's mean"
    for name, cfg in (('rpn', model.rpn_head), ('rcnn', roi)):
        nms_cfg = cfg.test_cfg.nms
        kind = type_name(nms_cfg.get('type', 'nms'))
        if kind != 'nms' or not {*nms_cfg} <= NMS_SETTINGS:
            yield (f"test_cfg.{name}.nms is {nms_cfg}, not type='nms' with "
                   f'{", ".join(sorted(NMS_SETTINGS))}')


def export_detector(model: nn.Module,
                    path: str | os.PathLike,
                    resize: BaseTransform | None = None,
                    classes: Sequence[str] = ()) -> Path:
    """Write a detector of MMDetection as one ONNX file.

    Args:
        model (nn.Module): Faster or Mask R-CNN.
        path (str | os.PathLike): The file, ``.onnx``.
        resize (BaseTransform, optional): See :class:`WholeDetector`.
        classes (Sequence[str]): Their names, for the file's metadata.
            Defaults to ().

    Returns:
        Path: The file. Its input is 'picture', its outputs are 'boxes',
        'scores', 'labels' and, of Mask R-CNN, 'masks'.

    Raises:
        ValueError: See :func:`check_detector`.
    """
    need('onnx')
    need('onnxscript')
    detector = WholeDetector(model, resize)
    example = torch.randint(256, (96, 128, image_channels(model)))
    sides = {
        0: torch.export.Dim('height', min=1),
        1: torch.export.Dim('width', min=1)
    }
    with exporting(detector):
        program = torch.export.export(
            detector, (example.byte(), ), dynamic_shapes=(sides, ))
    names = ('boxes', 'scores', 'labels', 'masks')
    written = torch.onnx.export(
        program,
        input_names=['picture'],
        output_names=names[:len(program.graph_signature.user_outputs)],
        verbose=False)
    written.model.metadata_props.update(detector.describe(classes))
    with whole_file(path) as part:
        written.save(part, external_data=False)
    return Path(path)


class WholeDetector(nn.Module):
    """Test pipeline and ``predict`` of a detector as a graph without branches.

    Args:
        model (nn.Module): Faster or Mask R-CNN of MMDetection.
        resize (BaseTransform, optional): The test pipeline's, as
            :func:`find_resize` returns it. Defaults to None: pictures keep
            their size.

    Raises:
        ValueError: If a part of the model computes something else.
    """

    def __init__(self,
                 model: nn.Module,
                 resize: BaseTransform | None = None) -> None:
        super().__init__()
        check_detector(model)
        self.model = model
        self.resize = resize
        # Whether the first channel becomes the last: asked of what was built.
        probe = torch.zeros(image_channels(model), 1, 1, dtype=torch.uint8)
        probe[0] = 255
        probe = model.data_preprocessor(
            dict(inputs=[probe], data_samples=None))['inputs'][0, :, 0, 0]
        self.flip = bool(probe.argmax() > 0)

    def describe(self, classes: Sequence[str]) -> dict[str, str]:
        """What a file of this detector tells of itself, in JSON."""
        preprocessor, resize = self.model.data_preprocessor, self.resize
        told = dict(
            classes=[*classes],
            picture='(height, width, channels) of 8 bits, as OpenCV reads it',
            scale=resize and resize.scale,
            keep_ratio=resize and resize.keep_ratio,
            bgr_to_rgb=self.flip,
            pad_size_divisor=preprocessor.pad_size_divisor,
            mask_threshold=self.model.roi_head.test_cfg.get('mask_thr_binary'))
        for name in ('mean', 'std'):
            if hasattr(preprocessor, name):
                told[name] = getattr(preprocessor, name).flatten().tolist()
        return {name: json.dumps(value) for name, value in told.items()}

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """A picture (H, W, C) of 8 bits, channels as OpenCV reads them.

        Returns:
            tuple[Tensor, ...]: Boxes (N, 4), x1, y1, x2, y2 in pixels of the
            picture; scores (N, ), falling; labels (N, ); and for Mask R-CNN
            probabilities (N, 28, 28) that a point of the box is object.
        """
        picture, scale = self.fit(picture)
        height, width, _ = picture.shape
        head = self.model.roi_head
        features = self.model.extract_feat(self.prepare(picture))
        proposals = self.propose(features, (height, width))
        # As in MMDetection: in pixels of the picture before the NMS, where no
        # mask has to be read from the features.
        first = 1 if head.with_mask else scale
        boxes, scores, labels = self.classify(features, proposals,
                                              (height, width), first)
        if not head.with_mask:
            return boxes, scores, labels
        masks = head.mask_head(
            pool(head.mask_roi_extractor, features, boxes)).sigmoid()
        channels = torch.zeros_like(labels) if \
            head.mask_head.class_agnostic else labels
        masks = masks[torch.arange(labels.shape[0]), channels]
        return boxes / scale, scores, labels, masks

    def fit(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Resize as the test pipeline does: (h, w, C), and factors (4, ) by
        which x and y grew."""
        if self.resize is None:
            return picture, torch.ones(4)
        size = torch.stack([
            torch.scalar_tensor(side, dtype=torch.float64)
            for side in picture.shape[:2]
        ])
        width, height = self.resize.scale
        if self.resize.keep_ratio:
            factor = torch.minimum(
                max(width, height) / size.max(),
                min(width, height) / size.min())
            new = (size * factor + 0.5).floor()
        else:
            new = torch.tensor([height, width], dtype=torch.float64)
        scale = (new / size).flip(0).repeat(2).float()
        return resize_8_bits(picture, size, new), scale

    def prepare(self, picture: Tensor) -> Tensor:
        """(h, w, C) of 8 bits to the images (1, C, h', w') that the backbone
        gets: normalised and padded."""
        preprocessor = self.model.data_preprocessor
        image = picture.permute(2, 0, 1).float()
        if self.flip:
            image = image.flip(0)
        if hasattr(preprocessor, 'mean'):
            image = (image - preprocessor.mean) / preprocessor.std
        divisor = preprocessor.pad_size_divisor
        padded = torch.stack([
            torch.scalar_tensor(side, dtype=torch.int64)
            for side in image.shape[1:]
        ])
        # New numbers to the export, of which it knows what the backbone asks.
        height, width = (-(-padded // divisor) * divisor).tolist()
        for side in (height, width):
            torch._check(side >= 32)
        return pad(
            image[None],
            (0, width - image.shape[2], 0, height - image.shape[1]),
            value=preprocessor.pad_value)

    def propose(self, features: Sequence[Tensor], shape: tuple) -> Tensor:
        """Features of the neck to RPN's boxes (N, 4)."""
        head, cfg = self.model.rpn_head, self.model.rpn_head.test_cfg
        outputs = head(features)
        anchors = head.prior_generator.grid_priors(
            [x.shape[-2:] for x in outputs[0]],
            dtype=features[0].dtype,
            device=features[0].device)
        found = []
        for level, (logits, deltas, priors) in enumerate(
                zip(*outputs, anchors, strict=True)):
            logits = logits[0].permute(1, 2, 0).reshape(
                -1, head.cls_out_channels)
            deltas = deltas[0].permute(1, 2, 0).reshape(-1, 4)
            scores = logits.sigmoid() if head.use_sigmoid_cls else \
                logits.softmax(-1)[:, :-1]
            scores = scores[:, 0]
            if cfg.get('nms_pre', -1) > 0:
                # Sorted, as MMDetection does: of equals the first ones.
                best = scores.argsort(descending=True)[:torch.sym_min(
                    cfg.nms_pre, scores.shape[0])]
                scores = scores[best]
                deltas, priors = deltas[best], priors[best]
            found.append(
                (priors, deltas, scores, torch.full_like(scores, level)))
        priors, deltas, scores, levels = map(torch.cat, zip(*found))
        boxes = head.bbox_coder.decode(priors, deltas, max_shape=shape)
        if cfg.get('min_bbox_size', -1) >= 0:
            sides = boxes[:, 2:] - boxes[:, :2]
            valid = (sides > cfg.min_bbox_size).all(1).nonzero()[:, 0]
            boxes, scores, levels = boxes[valid], scores[valid], levels[valid]
        return boxes[suppress(boxes, scores, levels, cfg)]

    def classify(self, features: Sequence[Tensor], proposals: Tensor,
                 shape: tuple, scale) -> tuple[Tensor, Tensor, Tensor]:
        """Features and proposals to boxes (N, 4), scores and labels (N, )."""
        head, cfg = self.model.roi_head.bbox_head, self.model.roi_head.test_cfg
        logits, deltas = head(
            pool(self.model.roi_head.bbox_roi_extractor, features, proposals))
        scores = logits.softmax(-1)[:, :-1]
        classes = 1 if head.reg_class_agnostic else head.num_classes
        torch._check(proposals.shape[0] > 0)  # the coder asks
        boxes = head.bbox_coder.decode(
            proposals.repeat_interleave(classes, dim=0),
            deltas.reshape(-1, 4),
            max_shape=shape) / scale
        roi, labels = (scores > cfg.score_thr).nonzero().unbind(1)
        scores = scores[roi, labels]
        boxes = boxes[roi if classes == 1 else roi * classes + labels]
        keep = suppress(boxes, scores, labels, cfg)
        return boxes[keep], scores[keep], labels[keep]


def resize_8_bits(picture: Tensor, size: Tensor, new: Tensor) -> Tensor:
    """What ``cv2.resize`` makes of a picture of 8 bits, to the bit.

    OpenCV weighs by whole 2048ths, and drops 4 bits of each row's sum.

    Args:
        picture (Tensor): (H, W, C).
        size (Tensor): H and W, in float64.
        new (Tensor): Height and width to get, in float64.
    """
    picture = picture.int()
    for dim in (1, 0):
        last = picture.shape[dim] - 1
        number = new[dim].long().item()
        at = torch.arange(number, dtype=torch.float64)
        at = ((at + 0.5) * (1 / (new[dim] / size[dim])) - 0.5).float()
        low = at.floor()
        part = at - low
        if dim == 1:  # at the border, OpenCV holds columns and weighs rows
            part = torch.where((low < 0) | (low >= last), 0, part)
        low = low.long()
        shape = (-1, 1) if dim else (-1, 1, 1)
        first, second = (
            picture.index_select(dim, index.clamp(0, last)) *
            (weight * 2048).round().int().reshape(shape)
            for index, weight in ((low, 1 - part), (low + 1, part)))
        if dim == 1:
            picture = (first + second) // 16
        else:
            picture = (first // 2**16 + second // 2**16 + 2) // 4
    return picture.to(torch.uint8)


def pool(extractor: nn.Module, features: Sequence[Tensor],
         boxes: Tensor) -> Tensor:
    """RoIAlign of each box at the level of its size."""
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)
    features = features[:extractor.num_inputs]
    levels = extractor.map_roi_levels(rois, len(features))
    order, pooled = [], []
    for level, (feature, layer) in enumerate(
            zip(features, extractor.roi_layers, strict=True)):
        chosen = (levels == level).nonzero()[:, 0]
        order.append(chosen)
        pooled.append(
            roi_align(feature, rois[chosen], layer.output_size,
                      layer.spatial_scale, layer.sampling_ratio,
                      layer.aligned))
    pooled, order = torch.cat(pooled), torch.cat(order)
    # As many as boxes, which the export does not know of the sum of levels.
    return pooled.new_zeros(boxes.shape[0], *pooled.shape[1:]).index_put(
        (order, ), pooled)


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, cfg) -> Tensor:
    """Indices of the boxes that an NMS within each group keeps, the best
    ``max_per_img``."""
    if not cfg.nms.get('class_agnostic', False):
        # Apart from each other, as MMCV's are. No box at all has no maximum.
        far = torch.cat([boxes.reshape(-1), boxes.new_zeros(1)]).max() + 1
        boxes = boxes + (groups.to(boxes) * far)[:, None]
    keep = nms(boxes, scores, cfg.nms.iou_threshold)
    return keep[:cfg.max_per_img] if cfg.max_per_img > 0 else keep
