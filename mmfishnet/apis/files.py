# Copyright (c) mmfishnet authors. All rights reserved.
from __future__ import annotations

import csv
import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import mmengine
import numpy as np
from pycocotools import mask as coco_mask

from ..visualization import draw_instances, draw_scores

JPEG = (cv2.IMWRITE_JPEG_QUALITY, 92)


def coco_results(prediction, image_id: int,
                 category_ids: Sequence[int]) -> list[dict]:
    """Put a detector's prediction into COCO's result form.

    Args:
        prediction (Prediction): What the model says of a picture.
        image_id (int): Id of the picture.
        category_ids (Sequence[int]): Id of each class.

    Returns:
        list[dict]: ``image_id``, ``category_id``, ``bbox`` (x, y, width,
        height), ``score`` and, if there are masks, ``segmentation`` (RLE) of
        each object.
    """
    instances = prediction.instances
    boxes = instances.bboxes.astype(float)
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    results = [
        dict(
            image_id=image_id,
            category_id=category_ids[label],
            bbox=box,
            score=score)
        for box, label, score in zip(boxes.tolist(), instances.labels.tolist(),
                                     instances.scores.tolist())
    ]
    if 'masks' in instances:
        masks = coco_mask.encode(
            np.asfortranarray(instances.masks.transpose(1, 2, 0), np.uint8))
        for result, mask in zip(results, masks):
            result['segmentation'] = dict(
                size=mask['size'], counts=mask['counts'].decode())
    return results


class Writer:
    """Writes predictions as pictures, COCO results and tables.

    Args:
        out_dir (str): Folder for the results.
        model (Predictor): Whose predictions they are.
        score_thr (float): Objects of a lower score are in predictions.json
            only.
        ann_file (str, optional): COCO file with the ids of pictures and
            classes. Defaults to None.
        pictures (bool): Whether to draw. Defaults to True.

    Attributes:
        rows (list[dict]): The rows of counts.csv, or of predictions.csv.
        unnamed (list[str]): Pictures that ``ann_file`` does not name. Their
            ids are none of the file's.

    Raises:
        ValueError: If the classes of ``ann_file`` are not those of the
            model.
    """

    def __init__(self,
                 out_dir: str,
                 model,
                 score_thr: float,
                 ann_file: str | None = None,
                 pictures: bool = True) -> None:
        self.out_dir = Path(out_dir)
        self.model = model
        self.score_thr = score_thr
        self.pictures = pictures
        self.rows, self.objects = [], []
        self._results, self._images = [], []
        self._videos, self._drawn = {}, set()
        self._image_ids, self._new_ids = {}, itertools.count(1)
        self.unnamed = []
        self._category_ids = range(1, len(model.classes) + 1)
        if ann_file:
            self._read_ids(ann_file)

    def _read_ids(self, ann_file) -> None:
        data = mmengine.load(ann_file)
        self._image_ids = {i['file_name']: i['id'] for i in data['images']}
        self._new_ids = itertools.count(
            1 + max(self._image_ids.values(), default=0))
        ids = {c['name']: c['id'] for c in data['categories']}
        missing = [name for name in self.model.classes if name not in ids]
        if missing:
            raise ValueError(
                f'{ann_file} has no category named {", ".join(missing)}; its '
                f'categories are {", ".join(ids)}.')
        self._category_ids = [ids[name] for name in self.model.classes]

    def __enter__(self) -> Writer:
        self.out_dir.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *error) -> None:
        """Write the tables, of what there is if it was interrupted."""
        for video in self._videos.values():
            video.release()
        mmengine.dump(self._results, self.out_dir / 'predictions.json')
        if self.model.detects:
            mmengine.dump(
                dict(
                    images=self._images,
                    categories=[
                        dict(id=i, name=name) for i, name in zip(
                            self._category_ids, self.model.classes)
                    ]), self.out_dir / 'images.json')
            self._table('counts.csv', self.rows,
                        ('picture', 'class', 'count', 'area', 'share'))
            self._table('objects.csv', self.objects,
                        ('picture', 'class', 'score', 'x', 'y', 'width',
                         'height', 'area'))
        else:
            self._table('predictions.csv', self.rows,
                        ('picture', 'class', 'score'))

    def _table(self, name, rows, columns) -> None:
        with open(
                self.out_dir / name, 'w', newline='',
                encoding='utf-8') as file:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            table.writerows(rows)

    def add(self, prediction) -> None:
        """Draw a prediction and note its numbers.

        Args:
            prediction (Prediction): What the model says of a picture.
        """
        if not self.model.detects:
            self._add_scores(prediction)
            return
        picture, instances = prediction.picture, prediction.instances
        height, width = picture.image.shape[:2]
        image_id = self._image_ids.get(picture.name)
        if image_id is None:
            image_id = next(self._new_ids)
            self.unnamed.append(picture.name)
        self._images.append(
            dict(
                id=image_id,
                file_name=picture.name,
                width=width,
                height=height))
        results = coco_results(prediction, image_id, self._category_ids)
        self._results += results
        counts = defaultdict(lambda: [0, 0])
        for result, label in zip(results, instances.labels.tolist()):
            if result['score'] < self.score_thr:
                continue
            x, y, w, h = result['bbox']
            area = w * h
            if 'segmentation' in result:
                area = int(coco_mask.area(result['segmentation']))
            name = self.model.classes[label]
            self.objects.append({
                'picture': picture.name,
                'class': name,
                'score': round(result['score'], 4),
                'x': round(x, 1),
                'y': round(y, 1),
                'width': round(w, 1),
                'height': round(h, 1),
                'area': round(area)
            })
            counts[name][0] += 1
            counts[name][1] += area
        # A picture without objects has a row as well.
        for name, (count, area) in sorted(counts.items()) or [('', (0, 0))]:
            self.rows.append({
                'picture': picture.name,
                'class': name,
                'count': count,
                'area': round(area),
                'share': round(area / (width * height), 6)
            })
        if self.pictures:
            kept = instances[instances.scores >= self.score_thr]
            video = picture.video is not None
            self._save(
                picture,
                draw_instances(
                    picture.image,
                    kept,
                    self.model.classes,
                    # Frames are of one size, and have nothing of their own
                    # to tell an object by.
                    legend=False if video else None,
                    by_class=True if video else None))

    def _add_scores(self, prediction) -> None:
        picture, scores = prediction.picture, prediction.scores
        best = int(scores.argmax())
        row = {
            'picture': picture.name,
            'class': self.model.classes[best],
            'score': round(float(scores[best]), 4)
        }
        self.rows.append(row)
        self._results.append(
            dict(row, label=best, scores=np.round(scores, 6).tolist()))
        if self.pictures:
            self._save(
                picture,
                draw_scores(picture.image, scores, self.model.classes))

    def _save(self, picture, drawing) -> None:
        drawing = np.ascontiguousarray(drawing[..., ::-1])
        name = picture.video
        if name is None:
            cv2.imwrite(self._path(picture.name, '.jpg'), drawing, JPEG)
            return
        if name not in self._videos:
            self._videos[name] = cv2.VideoWriter(
                self._path(name, '.mp4'), cv2.VideoWriter_fourcc(*'mp4v'),
                picture.fps or 25, drawing.shape[1::-1])
        self._videos[name].write(drawing)

    def _path(self, name: str, suffix: str) -> str:
        folder = self.out_dir / 'pictures'
        path = (folder / name).with_suffix(suffix)
        if path in self._drawn:  # a.png and a.jpg
            path = folder / f'{name}{suffix}'
        self._drawn.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(path)
