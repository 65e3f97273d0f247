# Copyright (c) mmfishnet authors. All rights reserved.
"""Train and evaluate Mask R-CNN with a small FishNet on drawn shapes.

Runs the commands that a user would type, one after the other: draw the data
sets, pretrain on images with one object each, train Mask R-CNN, test, plot.
Says what to expect of each, and what came out; the commands and all that they
print are in demo.log. All results lie in one folder. With --levels, the same
pretrained fish is trained for pixels too, by Semantic FPN, and a picture shows
what it says of images, regions and pixels.
"""
import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from mmengine.utils import get_installed_path
from PIL import Image, ImageOps
from rich.console import Console

TOOLS = Path(__file__).resolve().parent
CONFIGS = TOOLS.parent / 'configs/shapes'
TILE = 480  # width of a picture in the sheet
# What the training logs of evaluations, and how we call it.
RESULTS = {'accuracy/top1': 'top-1 accuracy in per cent',
           'coco/bbox_mAP': 'box AP', 'coco/segm_mAP': 'mask AP',
           'mIoU': 'mean IoU in per cent'}
FOUND = re.compile(rf'\b({"|".join(RESULTS)}): +(-?[\d.]+)')
PROGRESS = re.compile(r'Epoch\(train\) +(\S.*?\]) .*?eta: (\S+)')


class Demo:
    """The stages: one line each of what to expect, and what came out.

    Args:
        log (Path): Where all goes that the commands print.
        count (int): How many stages there are.
    """

    def __init__(self, log: Path, count: int) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log, self.count, self.number = log, count, 0
        self.start, self.console = time.time(), Console(highlight=False)
        log.write_text('')
        self.say(f'Everything that the commands print is in {log}')

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def run(self, title: str, *commands) -> None:
        """Run commands side by side; stop if one fails.

        What the first one evaluates is shown as it comes.
        """
        self.number += 1
        self.say(f'[{self.number}/{self.count}] {title}')
        env = dict(os.environ, PYTHON=sys.executable, MPLBACKEND='Agg')
        commands = [list(map(str, command)) for command in commands]
        first, *beside = [
            subprocess.Popen(command, env=env, text=True, errors='replace',
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for command in commands]
        with self.log.open('a') as log, self.console.status('') as status:
            log.write(f'\n=== {title}\n')
            log.writelines(f'$ {shlex.join(command)}\n'
                           for command in commands)
            for line in first.stdout:
                log.write(line)
                log.flush()
                if progress := PROGRESS.search(line):
                    status.update('epoch and step {}, {} left'.format(
                        *progress.groups()))
                if found := FOUND.findall(line):
                    self.say(f'      {self.minutes():.1f} min: ' + ', '.join(
                        f'{RESULTS[name]} {float(value):.4g}'
                        for name, value in found))
            for process in beside:
                log.write(process.communicate()[0])
        for process in (first, *beside):
            if process.wait():
                last = self.log.read_text().splitlines()[-20:]
                sys.exit('\n'.join([*last, f'error: "{title}" failed with exit'
                                    f' status {process.returncode}; all that '
                                    f'was printed is in {self.log}']))

    def minutes(self) -> float:
        return (time.time() - self.start) / 60


def contact_sheet(pictures, out, columns=4, rows=3):
    """Tile pictures, ground truth beside prediction."""
    images = [ImageOps.contain(Image.open(path), (TILE, 2 * TILE))
              for path in sorted(pictures)[:columns * rows]]
    # A legend makes a picture higher.
    height = max(image.height for image in images)
    sheet = Image.new('RGB', (columns * TILE,
                              -(-len(images) // columns) * height), 'white')
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * TILE, i // columns * height))
    sheet.save(out)


def last_checkpoint(work_dir):
    return (work_dir / 'last_checkpoint').read_text().strip()


def plots(work_dir):
    """Commands that draw the curves of a training."""
    scalars = max(work_dir.glob('*/vis_data/scalars.json'),
                  key=lambda path: path.stat().st_mtime)
    logs = Path(get_installed_path('mmdet'), '.mim/tools/analysis_tools')
    return [[
        sys.executable, logs / 'analyze_logs.py', 'plot_curve', scalars,
        '--style', 'default', '--keys', *keys, '--legend', *keys, '--out',
        work_dir / f'{name}.png'
    ] for name, *keys in (('loss', 'loss', 'loss_cls', 'loss_bbox',
                           'loss_mask'), ('ap', 'bbox_mAP', 'segm_mAP'))]


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default='work_dirs/demo')
    parser.add_argument('--data-dir', type=Path, default='data',
                        help='where the data sets are drawn to')
    parser.add_argument(
        '--gpus', type=int,
        default=torch.cuda.device_count() or min(2, os.cpu_count()),
        help='processes; by default all GPUs, or two on the CPU')
    parser.add_argument(
        '--quick', action='store_true',
        help='a few images and one epoch each, to see that everything runs')
    parser.add_argument(
        '--levels', action='store_true',
        help='pixels as well as images and regions; needs MMSegmentation')
    args = parser.parse_args()
    if args.levels and not find_spec('mmseg'):
        sys.exit('error: --levels needs MMSegmentation. `make env` or `pip '
                 'install onedl-mmsegmentation` installs it.')
    return args


def main():
    args = parse_args()
    work_dir = args.work_dir
    demo = Demo(work_dir / 'demo.log', 6 if args.levels else 4)

    data_cls, data = args.data_dir / 'shapes_cls', args.data_dir / 'shapes'
    amount, shorter = [], []
    if args.quick:
        data_cls, data = (path.with_name(path.name + '_quick')
                          for path in (data_cls, data))
        amount = ['--train', 24, '--val', 12]
        shorter = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1',
                   'default_hooks.logger.interval=1']
    draw = [sys.executable, TOOLS / 'dataset_tools/draw_shapes.py']
    demo.run('Draw images with several objects, and with one each: seconds',
             [*draw, data, *amount],
             [*draw, data_cls, '--task', 'cls', *amount])

    def train(config, folder, data, *options):
        options = [*options, *shorter]
        return ['bash', TOOLS / 'dist_train.sh', CONFIGS / config, args.gpus,
                '--data-root', data, '--work-dir', folder,
                *['--cfg-options'] * bool(options), *options]

    pretrain_dir = work_dir / 'pretrain'
    demo.run('Pretrain FishNet as a classifier: 5 epochs, one to three minutes'
             ' on two cores', train('fishnet_tiny_shapes.py', pretrain_dir,
                                    data_cls))
    pretrained = last_checkpoint(pretrain_dir)
    weights = f'model.backbone.init_cfg.checkpoint={pretrained}'
    config = 'mask_rcnn_fishnet_shapes.py'
    demo.run('Train Mask R-CNN: 2 epochs, three to six minutes; mask AP near '
             '0.33 after the first, 0.41 after the second',
             train(config, work_dir, data, weights))

    checkpoint = last_checkpoint(work_dir)
    pictures = work_dir / 'pictures'
    # Of several processes, the first draws what it predicts.
    demo.run('Evaluate the checkpoint, which gives the same again; draw '
             'predictions and curves: half a minute', [
                 'bash', TOOLS / 'dist_test.sh', CONFIGS / config, checkpoint,
                 args.gpus, '--data-root', data, '--work-dir', work_dir,
                 '--show-dir', pictures.resolve()], *plots(work_dir))
    contact_sheet(pictures.glob('**/*.jpg'), work_dir / 'predictions.png')
    if args.levels:
        pixels_dir = work_dir / 'pixels'
        demo.run('Train Semantic FPN: one to three minutes',
                 train('semantic_fpn_fishnet_shapes.py', pixels_dir, data,
                       weights))
        demo.run('Draw what the three say of the same images: seconds', [
            sys.executable, TOOLS / 'levels.py', '--classifier', pretrained,
            '--detector', checkpoint, '--segmenter',
            last_checkpoint(pixels_dir), '--data-root', data, '--out',
            work_dir / 'levels.jpg'])
    demo.say(f'Done in {demo.minutes():.1f} minutes. Pictures (ground truth '
             'left, predictions right), curves, logs and the checkpoint are '
             f'in {work_dir.resolve()}')


if __name__ == '__main__':
    main()
