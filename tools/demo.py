# Copyright (c) mmfishnet authors. All rights reserved.
"""Train and evaluate Mask R-CNN with a small FishNet on drawn shapes.

Runs the commands that a user would type, one after the other, and prints
them: draw the data sets, pretrain on images with one object each, train Mask
R-CNN, test, plot. All results lie in one folder. With --levels, the same
pretrained fish is trained for pixels too, by Semantic FPN, and a picture shows
what it says of images, regions and pixels.
"""
import argparse
import os
import shlex
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from mmengine.utils import get_installed_path
from torchvision.io import read_image, write_png
from torchvision.transforms.functional import pad, resize
from torchvision.utils import make_grid

TOOLS = Path(__file__).resolve().parent
CONFIGS = TOOLS.parent / 'configs/shapes'
PRETRAIN = CONFIGS / 'fishnet_tiny_shapes.py'
CONFIG = CONFIGS / 'mask_rcnn_fishnet_shapes.py'
PIXELS = CONFIGS / 'semantic_fpn_fishnet_shapes.py'
TILE = 480  # width of a picture in the sheet


def run(title, *commands):
    """Print commands and run them side by side; stop if one fails.

    The first one's messages are shown as they come, those of the others when
    it has ended.
    """
    commands = [list(map(str, command)) for command in commands]
    print(f'\n=== {title}')
    print(*(f'$ {shlex.join(c)}' for c in commands), sep='\n', flush=True)
    env = dict(os.environ, PYTHON=sys.executable, MPLBACKEND='Agg')
    shown, *beside = [
        subprocess.Popen(
            command,
            env=env,
            stdout=subprocess.PIPE if i else None,
            stderr=subprocess.STDOUT if i else None)
        for i, command in enumerate(commands)
    ]
    shown.wait()
    for process in beside:
        print(process.communicate()[0].decode(), end='', flush=True)
    failed = [p.returncode for p in (shown, *beside) if p.returncode]
    if failed:
        sys.exit(f'error: "{title}" failed with exit status {failed[0]}; its '
                 'messages are above.')


def contact_sheet(pictures, out, columns=4, rows=3):
    """Tile pictures, ground truth beside prediction."""
    images = [
        read_image(str(path)) for path in sorted(pictures)[:columns * rows]
    ]
    images = [
        resize(image, [round(TILE * image.shape[1] / image.shape[2]), TILE])
        for image in images
    ]
    # A legend makes a picture higher.
    height = max(image.shape[1] for image in images)
    images = [
        pad(image, [0, 0, 0, height - image.shape[1]], fill=255)
        for image in images
    ]
    # A row that is not full ends in white.
    sheet = make_grid(images, nrow=columns, padding=0, pad_value=255)
    write_png(sheet, str(out))


def newest(folder, pattern):
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime)


def last_checkpoint(work_dir):
    return (work_dir / 'last_checkpoint').read_text().strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default='work_dirs/demo')
    parser.add_argument(
        '--data-dir',
        type=Path,
        default='data',
        help='where the data sets are drawn to')
    parser.add_argument(
        '--gpus',
        type=int,
        default=torch.cuda.device_count() or min(2, os.cpu_count()),
        help='processes; by default all GPUs, or two on the CPU')
    parser.add_argument(
        '--quick',
        action='store_true',
        help='a few images and one epoch each, to see that everything runs')
    parser.add_argument(
        '--levels',
        action='store_true',
        help='pixels as well as images and regions; needs MMSegmentation')
    args = parser.parse_args()
    if args.levels and not find_spec('mmseg'):
        sys.exit('error: --levels needs MMSegmentation. `make env` or `pip '
                 'install onedl-mmsegmentation` installs it.')
    start = time.time()

    data_cls, data = args.data_dir / 'shapes_cls', args.data_dir / 'shapes'
    amount, shorter = [], []
    if args.quick:
        data_cls, data = (path.with_name(path.name + '_quick')
                          for path in (data_cls, data))
        amount = ['--train', 24, '--val', 12]
        shorter = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1',
                   'default_hooks.logger.interval=1']
    draw = [sys.executable, TOOLS / 'dataset_tools/draw_shapes.py']
    run('Draw images with several objects, and with one object each',
        [*draw, data, *amount], [*draw, data_cls, '--task', 'cls', *amount])

    train = ['bash', TOOLS / 'dist_train.sh']
    pretrain_dir = args.work_dir / 'pretrain'
    run('Pretrain FishNet as a classifier', [
        *train, PRETRAIN, args.gpus, '--data-root', data_cls, '--work-dir',
        pretrain_dir, *(['--cfg-options', *shorter] if shorter else [])
    ])

    pretrained = last_checkpoint(pretrain_dir)
    options = ['--data-root', data, '--work-dir', args.work_dir]
    overrides = ['--cfg-options',
                 f'model.backbone.init_cfg.checkpoint={pretrained}', *shorter]
    run('Train Mask R-CNN',
        [*train, CONFIG, args.gpus, *options, *overrides])

    scalars = newest(args.work_dir, '*/vis_data/scalars.json')
    checkpoint = last_checkpoint(args.work_dir)
    pictures = args.work_dir / 'pictures'
    logs = Path(get_installed_path('mmdet'), '.mim/tools/analysis_tools')
    plots = [[
        sys.executable, logs / 'analyze_logs.py', 'plot_curve', scalars,
        '--style', 'default', '--keys', *keys, '--legend', *keys, '--out',
        args.work_dir / f'{name}.png'
    ] for name, *keys in (('loss', 'loss', 'loss_cls', 'loss_bbox',
                           'loss_mask'), ('ap', 'bbox_mAP', 'segm_mAP'))]
    # Of several processes, the first draws what it predicts.
    run('Evaluate on images not trained on, draw predictions, plot curves', [
        'bash', TOOLS / 'dist_test.sh', CONFIG, checkpoint, args.gpus,
        *options, '--show-dir', pictures.resolve()
    ], *plots)
    contact_sheet(
        pictures.glob('**/*.jpg'), args.work_dir / 'predictions.png')
    if args.levels:
        pixels_dir = args.work_dir / 'pixels'
        run('Train Semantic FPN', [
            *train, PIXELS, args.gpus, '--data-root', data, '--work-dir',
            pixels_dir, *overrides
        ])
        run('Draw what the three say of the same images', [
            sys.executable, TOOLS / 'levels.py', '--classifier', pretrained,
            '--detector', checkpoint, '--segmenter',
            last_checkpoint(pixels_dir), '--data-root', data, '--out',
            args.work_dir / 'levels.jpg'
        ])
    print(f'\nDone in {(time.time() - start) / 60:.1f} minutes. Pictures '
          '(ground truth left, predictions right), curves, logs and the '
          f'checkpoint are in {args.work_dir.resolve()}')


if __name__ == '__main__':
    main()
