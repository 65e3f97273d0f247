# Copyright (c) mmfishnet authors. All rights reserved.
"""Predictions as pictures, COCO results and tables."""
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

from ..visualization import draw_instances, draw_pixels, draw_scores

OBJECT = ('picture', 'class', 'score', 'x', 'y', 'width', 'height', 'area')
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 92)


class Writer:
    """Writes predictions as pictures, COCO results and tables.

    Arguments are those of :func:`mmfishnet.apis.predict`, and the names of
    the model's classes.

    Attributes:
        rows (list[dict]): The rows of counts.csv, predictions.csv or
            areas.csv.
        unnamed (list[str]): Pictures that ``ann_file`` does not name. Their
            ids are none of the file's.

    Raises:
        ValueError: If the classes of ``ann_file`` are not those of the
            model.
    """

    def __init__(self,
                 out_dir: str,
                 classes: Sequence[str],
                 score_thr: float,
                 ann_file: str | None = None,
                 pictures: bool = True) -> None:
        self.out_dir, self.classes = Path(out_dir), classes
        self.score_thr, self.pictures = score_thr, pictures
        self.rows, self.unnamed = [], []
        self._objects, self._results, self._images = [], [], []
        self._videos, self._drawn = {}, set()
        self._image_ids, self._category_ids = {}, range(1, len(classes) + 1)
        if ann_file:
            data = mmengine.load(ann_file)
            self._image_ids = {i['file_name']: i['id'] for i in data['images']}
            ids = {c['name']: c['id'] for c in data['categories']}
            missing = [name for name in classes if name not in ids]
            if missing:
                raise ValueError(
                    f'{ann_file} has no category named {", ".join(missing)}; '
                    f'its categories are {", ".join(ids)}.')
            self._category_ids = [ids[name] for name in classes]
        self._new_ids = itertools.count(
            1 + max(self._image_ids.values(), default=0))

    def __enter__(self) -> Writer:
        self.out_dir.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *error) -> None:
        """Write the tables, of what there is if it was interrupted."""
        for video in self._videos.values():
            video.release()
        columns = tuple(self.rows[0]) if self.rows else ()
        if 'label' in columns:
            self._table('areas.csv', self.rows, columns)
            return
        mmengine.dump(self._results, self.out_dir / 'predictions.json')
        if 'count' not in columns:
            self._table('predictions.csv', self.rows, columns)
            return
        categories = [dict(id=i, name=name)
                      for i, name in zip(self._category_ids, self.classes)]
        mmengine.dump(dict(images=self._images, categories=categories),
                      self.out_dir / 'images.json')
        self._table('counts.csv', self.rows, columns)
        self._table('objects.csv', self._objects, OBJECT)

    def _table(self, name, rows, columns) -> None:
        with open(self.out_dir / name, 'w', newline='',
                  encoding='utf-8') as file:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            table.writerows(rows)

    def add(self, prediction) -> None:
        """Draw a prediction and note its numbers."""
        picture, more = prediction.picture, {}
        if prediction.pixels is not None:
            draw, what = draw_pixels, prediction.pixels
            self._add_pixels(picture, what)
        elif prediction.scores is not None:
            draw, what = draw_scores, prediction.scores
            self._add_scores(picture, what)
        else:
            draw, found = draw_instances, prediction.instances
            self._add_instances(picture, found)
            what = found[found.scores >= self.score_thr]
            if picture.video is not None:
                # Frames are of one size, and have nothing of their own to
                # tell an object by.
                more = dict(legend=False, by_class=True)
        if self.pictures:
            self._save(picture, draw(picture.image, what, self.classes,
                                     **more))

    def _add_instances(self, picture, found) -> None:
        height, width = picture.image.shape[:2]
        image_id = self._image_ids.get(picture.name)
        if image_id is None:
            image_id = next(self._new_ids)
            self.unnamed.append(picture.name)
        self._images.append(dict(id=image_id, file_name=picture.name,
                                 width=width, height=height))
        masks, areas = found.get('masks', ()), defaultdict(list)
        if isinstance(masks, np.ndarray):
            masks = coco_mask.encode(
                np.asfortranarray(masks.transpose(1, 2, 0), np.uint8))
        for box, label, score, mask in itertools.zip_longest(
                found.bboxes.astype(float), found.labels,
                found.scores.tolist(), masks):
            x, y, w, h = *box[:2].tolist(), *(box[2:] - box[:2]).tolist()
            result = dict(image_id=image_id, bbox=[x, y, w, h], score=score,
                          category_id=self._category_ids[label])
            area = w * h
            if mask is not None:
                result['segmentation'] = dict(
                    size=mask['size'], counts=mask['counts'].decode())
                area = int(coco_mask.area(mask))
            self._results.append(result)
            if score >= self.score_thr:
                name = self.classes[label]
                areas[name].append(area)
                self._objects.append(dict(zip(OBJECT, (
                    picture.name, name, round(score, 4),
                    *(round(v, 1) for v in (x, y, w, h)), round(area)))))
        # A picture without objects has a row as well.
        for name, each in sorted(areas.items()) or [('', [])]:
            self.rows.append({
                'picture': picture.name, 'class': name, 'count': len(each),
                'area': round(sum(each)),
                'share': round(sum(each) / (width * height), 6)})

    def _add_scores(self, picture, scores) -> None:
        best = int(scores.argmax())
        row = {'picture': picture.name, 'class': self.classes[best],
               'score': round(float(scores[best]), 4)}
        self.rows.append(row)
        self._results.append(
            dict(row, label=best, scores=np.round(scores, 6).tolist()))

    def _add_pixels(self, picture, pixels) -> None:
        labels, areas = np.unique(pixels, return_counts=True)
        for label, area in zip(labels.tolist(), areas.tolist()):
            self.rows.append({
                'picture': picture.name, 'label': label,
                'class': self.classes[label], 'area': area,
                'share': round(area / pixels.size, 6)})
        kind = np.uint8 if len(self.classes) <= 256 else np.uint16
        cv2.imwrite(self._path(picture.name, '.png', 'maps'),
                    pixels.astype(kind))

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

    def _path(self, name: str, suffix: str, below: str = 'pictures') -> str:
        folder = self.out_dir / below
        path = (folder / name).with_suffix(suffix)
        if path in self._drawn or '#' in name.rpartition('.')[2]:
            # a.png beside a.jpg, a frame of a video
            path = folder / f'{name}{suffix}'
        self._drawn.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(path)
