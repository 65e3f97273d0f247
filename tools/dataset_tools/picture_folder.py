# Copyright (c) mmfishnet authors. All rights reserved.
"""A folder of pictures and labels: what is in it, and which split it is of."""
from __future__ import annotations

import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from mmfishnet.words import counted, first_few

PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm',
            '.pgm')
# What own_data.py writes; not read again as labels.
WRITTEN = 'own_data_'
# Words of a path that name a split, with what they may end in.
SPLITS = {
    split: re.compile(rf'(?<![a-z])({words})'
                      r'(sets?|data|split|images?|imgs?|annot\w*|labels?)?'
                      r'(?![a-z])')
    for split, words in dict(train='train(ing|val)?',
                             val='val(id(ation)?)?|dev',
                             test='test(ing)?').items()
}


class PictureFolder:
    """The files of a folder, listed once, and what is left out of them.

    Hidden files and folders (``._x.jpg``, ``__MACOSX``) are not seen.

    Args:
        root (str | os.PathLike): The folder.

    Attributes:
        files (list[str]): All files, relative, with ``/``.
        pictures (list[str]): Those that are pictures by their suffix.

    Raises:
        FileNotFoundError: If there is no such folder, or nothing in it.
        NotADirectoryError: If it is a file.
    """

    def __init__(self, root: str | os.PathLike) -> None:
        self.root = Path(root)
        if self.root.is_file():
            raise NotADirectoryError(
                f'{root} is a file; name the folder of the data set.')
        if not self.root.is_dir():
            raise FileNotFoundError(f'there is no folder {root} (looked for '
                                    f'{self.root.absolute()}).')
        self.files, seen = [], set()
        for folder, names, files in os.walk(self.root, followlinks=True):
            seen.add(os.path.realpath(folder))
            names[:] = sorted(
                n for n in names if not n.startswith(('.', '__', WRITTEN))
                and os.path.realpath(os.path.join(folder, n)) not in seen)
            place = Path(folder).relative_to(self.root)
            self.files += [(place / name).as_posix() for name in sorted(files)
                           if not name.startswith(('.', WRITTEN))]
        self.pictures = [f for f in self.files if f.lower().endswith(PICTURES)]
        if not self.pictures:
            raise FileNotFoundError(
                f'{root} holds no pictures ({", ".join(PICTURES)}).')
        # What was left out or put right, by reason and by what was done.
        self.left_out = defaultdict(dict)
        self._by_name = defaultdict(list)
        self._known = set(self.pictures)
        for picture in self.pictures:
            path = Path(picture)
            for key in {path.name, path.stem}:
                self._by_name[key].append(picture)

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Files of these suffixes."""
        return [f for f in self.files if f.lower().endswith(suffixes)]

    def read(self, name: str) -> str:
        """A text file of the folder or of anywhere; ValueError if it is no
        text."""
        try:
            return (self.root / name).read_text(encoding='utf-8-sig')
        except UnicodeDecodeError as fault:
            raise ValueError(f'{name} is no text in UTF-8: {fault}') from None

    def relative(self, path: str | os.PathLike) -> str:
        """A path from the folder where it is inside of it, else whole."""
        whole = os.path.abspath(path)
        inner = os.path.relpath(whole, self.root.absolute())
        if inner.split(os.sep)[0] == os.pardir:
            return whole
        return '' if inner == os.curdir else inner

    def find(self, name: str, label: str = '',
             place: str | None = None) -> str | None:
        """Find the picture that a label file means.

        Label tools write names, or paths relative to the label file, to the
        folder, or of another machine. Where a path fits nowhere, the picture
        whose path ends as it does is meant; of several, that of the label
        file's split, and the nearest.

        Args:
            name (str): What the label file says; without suffix as well.
            label (str): The label file.
            place (str, optional): Folder of the pictures, where it is known.

        Returns:
            str | None: Relative path; None if there is none.
        """
        name, whole = name.replace('\\', '/'), self.root.absolute()
        near = os.path.dirname(label) if place is None else place
        for start in (near, ''):
            path = os.path.relpath(os.path.join(whole, start, name), whole)
            if path in self._known:
                return path
        words = {*re.split('[/_.]', f'{label}/{place or ""}')}

        def likeness(path):
            ends = zip(reversed(path.split('/')), reversed(name.split('/')))
            same = next((i for i, (a, b) in enumerate(ends) if a != b), 99)
            return (same, split_of(path) == split_of(label),
                    len(words & {*re.split('[/_.]', path)}))

        found = self._by_name.get(os.path.basename(name), ())
        return max(found, key=likeness, default=None)

    def _read(self, picture: str, read: Callable):
        """What a function makes of an open picture; None if it is none."""
        try:
            with Image.open(self.root / picture) as image:
                return read(image)
        # Pillow's plugins raise OSError, SyntaxError, struct.error ...
        except Exception:
            self.leave_out('file unreadable as a picture', picture)
            return None

    def size(self, picture: str) -> tuple[int, int] | None:
        """Width and height, upright; None if the file is no whole picture."""

        def read(image):
            if not _has_end(self.root / picture, image.format):
                image.load()  # raises where the end is missing
            turned = image.getexif().get(0x0112, 1) > 4
            return image.size[::-1] if turned else image.size

        return self._read(picture, read)

    def array(self, picture: str) -> np.ndarray | None:
        """Pixels as they are stored, indices of a palette as such."""
        return self._read(picture, np.asarray)

    def leave_out(self, reason: str, what, instead: str = 'left out') -> None:
        """Note what is left out or put right, to be counted and named."""
        self.left_out[reason, instead][what] = None

    def leave_unlabelled(self, labelled: Iterable[str]) -> None:
        """Note the pictures that no label file is for."""
        for picture in sorted(self._known - {*labelled}):
            if not any(picture in names for names in self.left_out.values()):
                self.leave_out('picture without labels', picture)

    def told(self) -> list[str]:
        """What was left out or put right, a line for each reason."""
        return [f'{counted(len(names), reason.split()[0])} '
                f'{reason.partition(" ")[2]}: {done} ({first_few(names, 3)})'
                for (reason, done), names in self.left_out.items()]


def _has_end(path: Path, kind: str | None) -> bool:
    end = dict(JPEG=b'\xff\xd9', PNG=b'IEND').get(kind)
    if end is None:
        return False
    with open(path, 'rb') as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 64))
        return end in file.read()


def split_of(path: str) -> str:
    """Which split a path is of: train, val, test, or '' where none is named.

    The nearest word counts: ``train/images/val_1.json`` is of val. It may go
    on, as in ``training_set``, ``trainset`` and ``train2017``, but not as
    another word does (``trainer``).
    """
    for part in reversed(Path(path).with_suffix('').parts):
        for split, words in SPLITS.items():
            if words.search(part.lower()):
                return split
    return ''


def choose_splits(items: dict[str, list], classes_of: Callable, share: float,
                  seed: int) -> tuple[dict[str, list], list[str]]:
    """Splits of what a folder has: train, val, and test if there are all
    three; and what is to be said.

    Args:
        items (dict[str, list]): By the split's name, '' for none.
        classes_of (Callable): Gives the classes in an item. Every class of a
            split that is made here stays in train.
        share (float): What of the items becomes val where no split is given.
        seed (int): Chooses which.

    Raises:
        ValueError: If there is one item only.
    """
    items = {split: found for split, found in items.items() if found}
    val = next((s for s in ('val', 'test') if s in items), None)
    if 'train' in items and val:
        lost = len(items.get('', ()))
        splits = dict(train=items['train'], val=items[val])
        if 'test' in items and val != 'test':
            splits['test'] = items['test']
        return splits, ([f'not used: {counted(lost, "picture")} of no split']
                        if lost else [])
    every = [item for found in items.values() for item in found]
    if len(every) < 2:
        raise ValueError(f'there is {counted(len(every), "labelled picture")}'
                         '; training and validation take one each at least.')
    wanted = max(1, round(share * len(every)))
    rest = Counter(c for item in every for c in set(classes_of(item)))
    order = random.Random(seed).sample(range(len(every)), len(every))
    chosen = set()
    for i in order:
        classes = set(classes_of(every[i]))
        if len(chosen) < wanted and all(rest[c] > 1 for c in classes):
            chosen.add(i)
            rest.subtract(classes)
    chosen = chosen or {order[0]}
    splits = dict(train=[], val=[])
    for i, item in enumerate(every):
        splits['val' if i in chosen else 'train'].append(item)
    return splits, [f'no split was given: {len(chosen)} of {len(every)} '
                    f'pictures, chosen by seed {seed}, are for validation']
