# Copyright (c) mmfishnet authors. All rights reserved.
"""Find objects in a picture by a detector that tools/export.py wrote.

Needs ONNX Runtime and NumPy alone, and Pillow to read a picture; this file
may be copied to where it is used.
"""
import argparse
import json
import os

import numpy as np
import onnxruntime


class Detector:
    """A detector in one ONNX file.

    Args:
        path (str): The file.
        providers (Sequence[str]): Where ONNX Runtime computes. Defaults to
            ('CPUExecutionProvider', ).
        threads (int): Defaults to 0, for ONNX Runtime's choice.

    Attributes:
        meta (dict): What the file tells of itself, such as 'classes'.
    """

    def __init__(self, path, providers=('CPUExecutionProvider', ), threads=0):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=list(providers))
        told = self.session.get_modelmeta().custom_metadata_map
        self.meta = {name: json.loads(text) for name, text in told.items()}

    def __call__(self, picture):
        """Find the objects.

        Args:
            picture (np.ndarray): (height, width, channels) of 8 bits, of any
                size; channels in OpenCV's order, blue, green, red.

        Returns:
            dict[str, np.ndarray]: 'boxes' (N, 4), x1, y1, x2, y2 in pixels;
            'scores' (N, ), the best first; 'labels' (N, ), places in
            ``meta['classes']``; of Mask R-CNN 'masks' (N, height, width).
        """
        names = [output.name for output in self.session.get_outputs()]
        found = dict(
            zip(names, self.session.run(names, dict(picture=picture))))
        if 'masks' in found:
            found['masks'] = paste(found['masks'], found['boxes'],
                                   picture.shape[:2],
                                   self.meta['mask_threshold'])
        return found


def paste(masks, boxes, size, threshold):
    """Paste masks to where their boxes are.

    Args:
        masks (np.ndarray): Probabilities (N, h, w) over each box.
        boxes (np.ndarray): (N, 4).
        size (tuple[int, int]): Height and width of the picture.
        threshold (float): Of a pixel that belongs to the object.

    Returns:
        np.ndarray: (N, height, width), bool.
    """

    def weights(low, high, number, cells):
        """(number, cells): of each cell in each pixel, bilinear."""
        pixels = np.arange(number) + 0.5
        with np.errstate(divide='ignore', invalid='ignore'):  # no width
            at = (pixels - low) / (high - low) * cells - 0.5
        return np.maximum(1 - abs(at[:, None] - np.arange(cells)), 0)

    pasted = np.zeros((len(masks), *size), bool)
    for mask, (x1, y1, x2, y2), out in zip(masks, boxes, pasted):
        rows = weights(y1, y2, size[0], mask.shape[0])
        columns = weights(x1, x2, size[1], mask.shape[1])
        out[:] = rows @ mask @ columns.T >= threshold
    return pasted


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('detector', help='.onnx')
    parser.add_argument('picture', help='what Pillow reads')
    args = parser.parse_args()
    from PIL import Image, ImageOps
    for path in (args.detector, args.picture):
        if not os.path.isfile(path):
            raise SystemExit(f'error: there is no file {path}.')
    find = Detector(args.detector)
    try:
        # Upright, as OpenCV reads it.
        picture = ImageOps.exif_transpose(Image.open(args.picture))
        picture = np.asarray(picture.convert('RGB'))
    except OSError as error:
        raise SystemExit(f'error: {args.picture}: {error}') from None
    found = find(picture[..., ::-1])
    classes = find.meta['classes']
    if not len(found['labels']):
        print('no objects')
    for i, label in enumerate(found['labels']):
        said = [
            classes[label] if classes else label,
            f'score {found["scores"][i]:.3f}',
            'box ' + ' '.join(f'{x:.1f}' for x in found['boxes'][i])
        ]
        if 'masks' in found:
            said.append(f'pixels {found["masks"][i].sum()}')
        print(*said, sep=', ')


if __name__ == '__main__':
    main()
