# Copyright (c) mmfishnet authors. All rights reserved.
"""Write a config for your own pictures, whatever their labels are.

The layout is found: COCO, YOLO, Pascal VOC, labelme, masks of objects, maps of
classes, or folders of classes. Boxes give a Faster R-CNN, outlines and masks a
Mask R-CNN, maps a Semantic FPN and folders a classifier, each over a small
FishNet. Labels in other formats than COCO's are written in it, beside the
data. What the data can say stands in the config with the reason.
"""
import argparse
import json
import os
from functools import partial
from pathlib import Path

from mmengine.config import Config

import box_labels
import config_texts
import mmfishnet  # noqa: F401 (registers FishNet)
import pixel_labels
from coco_records import coco_of, outlined, read_coco, tidy
from mmfishnet.checks import check_config, report
from mmfishnet.engine.errors import short_errors
from mmfishnet.engine.noise import leave_out_noise
from mmfishnet.whole_file import whole_file
from mmfishnet.words import counted, first_few
from picture_folder import WRITTEN, PictureFolder, choose_splits
from recipes import choose_recipe, measure_objects

KINDS = dict(coco='COCO',
             voc='Pascal VOC',
             labelme='labelme',
             yolo='YOLO',
             instances='masks, one number or picture for each object',
             maps='maps of classes',
             folders='folders of classes')
SAMPLED = 500  # pictures whose size is asked for


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('data_root', help='folder of the data set')
    add('config', help='where to write the config (.py)')
    add('--kind', choices=KINDS, help='what the labels are, if not as found')
    add('--train', metavar='FILE',
        help="annotations in COCO's format to train on, in the folder or a "
        'whole path, where the tool does not find them')
    add('--val', metavar='FILE', help='to validate on')
    add('--train-images', metavar='DIR', help='pictures of --train')
    add('--val-images', metavar='DIR', help='of --val')
    add('--classes', nargs='+', metavar='NAME',
        help='names, in the order of their numbers, for labels without')
    add('--val-share', type=float, default=0.2,
        help='part that becomes validation if no split is given (default: '
        '%(default)s)')
    add('--seed', type=int, default=0, help='chooses which (default: 0)')
    add('--labels-dir', metavar='DIR',
        help="where labels are written (default: the data's folder)")
    add('--overwrite', action='store_true',
        help='replace the config, and labels that were written')
    args = parser.parse_args()
    if not args.config.endswith('.py'):
        parser.error(f'{args.config} should end in .py')
    if not 0 < args.val_share < 1:
        parser.error(f'--val-share {args.val_share} should be between 0 and 1')
    return args


class OwnData:
    """What is found in a folder, on its way to a config.

    Args:
        args (Namespace): Of the command line.
    """

    def __init__(self, args) -> None:
        self.args = args
        self.folder = PictureFolder(args.data_root)
        self.labels = Path(args.labels_dir or args.data_root)
        self.notes = []  # what is said at the end
        self.written = []

    def config(self) -> str:
        """Find the labels, and write the config's text.

        Raises:
            ValueError: If there are no labels, or none that can be used.
        """
        folder, classes = self.folder, self.args.classes
        kind = 'coco' if self.args.train or self.args.val else self.args.kind
        if kind in (None, 'coco') and (found := self._coco_files()):
            return self._from_coco(found)
        for name, reader in (
                ('voc', box_labels.read_voc),
                ('labelme', box_labels.read_labelme),
                ('yolo', partial(box_labels.read_yolo, names=classes))):
            if kind in (None, name) and (found := reader(folder)):
                folder.leave_unlabelled(
                    s[0] for samples in found[0].values() for s in samples)
                return self._detector(name, *found)
        masks = kind in (None, 'instances', 'maps') and (
            pixel_labels.find_masks(folder))
        if masks and kind != 'maps' and (
                kind or any(len(paths) > 1 for paths in masks.values())
                or pixel_labels.shows_instances(folder, masks)):
            self.notes.append('each number or picture is taken for an object; '
                              'if numbers are classes: --kind maps')
            return self._detector('instances', *pixel_labels.read_masks(
                folder, masks, (classes or ['object'])[0]))
        if masks:
            self.notes.append('each number is taken for a class; if it is an '
                              'object: --kind instances')
            return self._segmenter(
                *pixel_labels.read_maps(folder, masks, classes))
        if kind in (None, 'folders') and (
                found := pixel_labels.read_folders(folder)):
            return self._classifier(*found)
        raise ValueError(
            f'{folder.root} holds {counted(len(folder.pictures), "picture")} '
            f'and no labels that are {KINDS[kind] if kind else "known"}. '
            f'Known are: {"; ".join(KINDS.values())}. docs/your_own_data.md '
            f'shows how each looks. {". ".join(folder.told())}'.strip())

    def _coco_files(self) -> dict[str, str]:
        """Files in COCO's format, by split."""
        given = {split: self.folder.relative(self.folder.root / name)
                 for split in ('train', 'val')
                 if (name := getattr(self.args, split))}
        found = {} if len(given) == 2 else box_labels.find_coco(self.folder)
        if given:
            found.pop('', None)
        return found | given

    def _from_coco(self, found: dict[str, str]) -> str:
        """Text of a detector's config, from files in COCO's format."""
        folder, splits, names, files = self.folder, {}, {}, []
        for split, name in found.items():
            place = getattr(self.args, f'{split}_images', None)
            if place and not (folder.root / place).is_dir():
                raise FileNotFoundError(
                    f'there is no folder {folder.root / place}; name the '
                    'one with the pictures (--train-images, --val-images).')
            place = place and folder.relative(folder.root / place)
            splits[split], names[split], prefix = read_coco(
                folder, name, place)
            if prefix is not None:
                files.append((splits[split], names[split], name, prefix))
        folder.leave_unlabelled(sample[0] for samples in splits.values()
                                for sample in samples)
        every = [*names.pop('train', ()), *(
            name for more in names.values() for name in more)]
        return self._detector('coco', splits, [*dict.fromkeys(every)], files)

    def _detector(self, kind: str, samples: dict[str, list],
                  names: list[str], files: list[tuple] | None = None) -> str:
        """Text of a detector's config; writes labels where need be.

        Args:
            kind (str): What the labels are.
            samples (dict[str, list]): By split.
            names (list[str]): Names of the classes.
            files (list[tuple], optional): Of files in COCO's format that can
                be used as they lie: the samples, the names, the file, and
                what its pictures' names start from. Other formats have none.
        """
        if files is None:
            samples = {split: tidy(self.folder, found)
                       for split, found in samples.items()}
        because = outlined(self.folder, samples)
        splits = self._choose(
            samples, lambda sample: [o['category'] for o in sample[2]])
        learnt = {item['category'] for *_, items in splits['train']
                  for item in items}
        classes = [name for name in names if name in learnt]
        self.notes += [f'category {name!r} has no objects to learn from: left '
                       'out' for name in names if name not in learnt]
        values = {}
        for split, found in splits.items():
            file, prefix = next((
                (file, prefix) for same, listed, file, prefix in files or ()
                if same is found
                and [n for n in listed if n in learnt] == classes),
                (None, ''))
            values[f'{split}_file'] = file or self._write(
                f'{split}.json', json.dumps(coco_of(found, names)))
            values[f'{split}_prefix'] = dict(img=prefix)
            counts = [len(items) for *_, items in found]
            self.notes.append(
                f'{split}: {counted(len(found), "picture")}, '
                f'{counted(sum(counts), "object")}' +
                (f'; {counts.count(0)} without objects: kept as background'
                 if 0 in counts else ''))
        sides = [max(size) for _, size, _ in splits['train']]
        recipe = choose_recipe(sides, batch_size=4)
        objects = measure_objects(splits['train'], recipe.side)
        # Half of RPN's samples may be objects, so twice as many as there are;
        # the heads see half of the objects in a step, and all before long.
        heads_see = max(32, min(128, objects.crowd))
        root, test = self.args.data_root, 'test' if 'test' in splits else 'val'
        name, metric, heads = (
            ('Faster', 'bbox', config_texts.BOX_HEAD) if because else
            ('Mask', 'segm', config_texts.MASK_HEAD))
        return self._text(
            kind, config_texts.DETECTOR, recipe, len(sides), **values,
            base=f'{name.lower()}_rcnn_fishnet_small', model=f'{name} R-CNN',
            because=because or 'outlines', classes=tuple(classes),
            monitor=f'coco/{metric}_mAP', heads=heads, kept=config_texts.KEPT,
            scale=objects.anchor_scale,
            val_path=os.path.join(root, values['val_file']),
            test_path=os.path.join(root, values[f'{test}_file']),
            crowd=objects.crowd, rpn_samples=2 * heads_see,
            rcnn_samples=heads_see, found=max(100, 2 * objects.crowd))

    def _segmenter(self, samples: dict, numbers: list[int],
                   names: list[str]) -> str:
        """Text of a segmenter's config; writes maps."""
        splits = self._choose(samples, lambda sample: sample[2])
        maps = self.labels / f'{WRITTEN}maps'
        place = os.path.join(self.folder.relative(maps), '')
        values = {}
        for split, found in splits.items():
            pixel_labels.write_maps(self.folder, found, numbers, maps)
            values |= self._listed(
                split, dict(img_path='', seg_map_path=place),
                [picture for picture, *_ in found])
        said = first_few(pixel_labels.colours(numbers) or numbers, 10)
        self.notes.append(
            f'maps are written to {maps}: {said} become 0 to '
            f'{len(numbers) - 1}')
        return self._text(
            'maps', config_texts.SEGMENTER,
            self._recipe(splits, batch_size=4), len(splits['train']), **values,
            base='semantic_fpn_fishnet_small', model='Semantic FPN',
            because='maps for the pictures', monitor='mIoU',
            classes=tuple(names), palette=config_texts.palette(len(names)))

    def _classifier(self, samples: dict, classes: list[str]) -> str:
        """Text of a classifier's config; writes lists of pictures."""
        splits = self._choose(samples, lambda sample: sample[1:])
        learnt = {name for _, name in splits['train']}
        classes = [name for name in classes if name in learnt]
        for found in splits.values():
            for picture, name in found:
                if name not in learnt:
                    self.folder.leave_out(
                        'picture of a class without any in training', picture)
        values = {}
        for split, found in splits.items():
            values |= self._listed(split, '', [
                f'{picture} {classes.index(name)}'
                for picture, name in found if name in learnt])
        return self._text(
            'folders', config_texts.CLASSIFIER,
            self._recipe(splits, batch_size=16, seen=10800, max_side=224),
            len(splits['train']), **values, base='classifier_fishnet_small',
            model='classifier', because='folders of classes',
            monitor='accuracy/top1', classes=tuple(classes))

    def _listed(self, split: str, prefix, lines: list[str]) -> dict:
        """Write the list of a split; the values that the config has of it."""
        text = ''.join(f'{line}\n' for line in lines)
        return {f'{split}_file': self._write(f'{split}.txt', text),
                f'{split}_prefix': prefix}

    def _recipe(self, splits: dict[str, list], **bounds):
        """The recipe for pictures of sizes that nothing says."""
        pictures = [sample[0] for sample in splits['train']]
        step = max(1, len(pictures) // SAMPLED)
        sizes = filter(None, map(self.folder.size, pictures[::step]))
        return choose_recipe([*map(max, sizes)], images=len(pictures),
                             **bounds)

    def _choose(self, samples: dict[str, list], classes_of) -> dict[str, list]:
        splits, notes = choose_splits(samples, classes_of,
                                      self.args.val_share, self.args.seed)
        self.notes += notes
        return splits

    def _write(self, name: str, text: str) -> str:
        """Write a file of labels, and tell its path for the config."""
        path = self.labels / f'{WRITTEN}{name}'
        if path.exists() and not self.args.overwrite and (
                path.read_text() != text):
            raise FileExistsError(
                f'{path} is there already, and differs: --overwrite replaces '
                'it, --labels-dir writes elsewhere.')
        with whole_file(path) as part:
            Path(part).write_text(text)
        self.written.append(str(path))
        return self.folder.relative(path)

    def _text(self, kind: str, body: str, recipe, images: int, *, model: str,
              because: str, classes: tuple, **values) -> str:
        """The config, and the sentences on it."""
        count = 'one class' if len(classes) == 1 else f'{len(classes)} classes'
        self.notes[:0] = [f'{self.folder.root}: {KINDS[kind]}',
                          f'chosen: {model}, as there are {because}; {count}: '
                          f'{first_few(classes, 20)}']
        if mirrored := config_texts.left_and_right(classes):
            self.notes.append('trained without flips, which make left right: '
                              f'{first_few(mirrored)}')
        self.notes += self.folder.told()
        if self.written:
            self.notes.append(f'written: {", ".join(self.written)}')
        self.notes.append(
            f'{self.args.config}: {images} pictures to train on, {count}, '
            f'{recipe.side} pixels, {recipe.epochs} epochs' +
            (', fewer if validation gains nothing' if recipe.patience else ''))
        return config_texts.write_text(
            body, about=f'{images} pictures of {count}, {KINDS[kind]}',
            data_root=os.path.join(self.args.data_root, ''), classes=classes,
            **recipe._asdict(), **values)


def main():
    args = parse_args()
    leave_out_noise()
    with short_errors():
        if os.path.exists(args.config) and not args.overwrite:
            raise FileExistsError(
                f'{args.config} is there already, perhaps with changes of '
                'yours: name another file, or --overwrite.')
        data = OwnData(args)
        text = data.config()
        print('\n'.join(data.notes[:-1]))
        cfg = Config.fromstring(text, '.py')
        parts = ['train', 'val']
        if cfg.test_dataloader != cfg.val_dataloader:
            parts.append('test')
        problems = check_config(cfg, parts)
        errors = [p for p in problems if p.level == 'error']
        if errors:
            raise ValueError(report(errors) + '\nNo config was written.')
        with whole_file(args.config) as part:
            Path(part).write_text(text)
        print(data.notes[-1])
        print(f'Train by it: python tools/train.py {args.config}')


if __name__ == '__main__':
    main()
