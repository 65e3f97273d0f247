# Copyright (c) mmfishnet authors. All rights reserved.
"""FishNet and a ResNet of as many parameters, from pretraining to Mask R-CNN.

The paper's central claim in miniature: pretrained on images and carried into
Mask R-CNN, FishNet gains more than a ResNet of as many parameters (sections
4.2 and 4.4). Here both are pretrained on drawn shapes, carried into Mask R-CNN
by the paper's recipe, and compared over several seeds. If it is stopped, the
same command goes on where it was.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev

from matplotlib.figure import Figure
from mmengine.config import Config

from mmfishnet.datasets import CLASSES, draw_classification, draw_coco
from mmfishnet.engine.errors import short_errors
from mmfishnet.whole_file import whole_file
from mmfishnet.words import counted
from tables import Cells

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = dict(fishnet='FishNet', resnet='ResNet')

# Name of a metric -> its title, what tools/test.py calls it, the factor that
# makes it a percentage, and the paper's numbers for FishNet-150 and ResNet-50
# (the authors' own, marked with a dagger in Table 3): Figure 4 and Table 3.
METRICS = dict(top1=('Top-1 accuracy', 'accuracy/top1', 1, (78.07, 76.22)),
               box_ap=('Box AP', 'coco/bbox_mAP', 100, (41.5, 38.7)),
               mask_ap=('Mask AP', 'coco/segm_mAP', 100, (37.0, 34.7)))
TASKS = dict(cls=('top1', ), mask_rcnn=('box_ap', 'mask_ap'))


@dataclass(frozen=True)
class Scale:
    """How much is drawn and trained."""

    cls_images: tuple[int, int]  # to pretrain on and to evaluate on
    det_images: tuple[int, int]  # of the detection set, likewise
    epochs: int | None = None  # of each training; None: those of the configs


FULL = Scale(cls_images=(3600, 960), det_images=(480, 160))
QUICK = Scale(cls_images=(36, 12), det_images=(8, 4), epochs=1)


class Study:
    """Pretrain, carry over, train and evaluate, for every network and seed.

    Each of the runs is recorded in its own folder when it is finished. A
    study that was stopped goes on where it was: finished runs are read, and
    those in progress resume from their last checkpoint.

    Args:
        work_dir (str | os.PathLike): Folder for data, runs and report.
        seeds (Sequence[int]): Defaults to (0, 1, 2).
        scale (Scale): Defaults to :data:`FULL`.
        jobs (int): Runs at a time, each with one thread. Defaults to 2.
    """

    def __init__(self, work_dir: str | os.PathLike,
                 seeds: Sequence[int] = (0, 1, 2), scale: Scale = FULL,
                 jobs: int = 2) -> None:
        self.work_dir = Path(work_dir).resolve()
        self.seeds = tuple(seeds)
        self.scale = scale
        self.jobs = jobs
        self._children: set[subprocess.Popen] = set()
        self._stopped = False

    def run(self) -> dict:
        """Do all that is not done yet.

        Returns:
            dict: ``results[network][metric]`` is a list, one percentage a
            seed; ``seeds``; ``minutes``, of all finished runs together.
        """
        self._check_settings()
        train, val = self.scale.cls_images
        draw_classification(self.work_dir / 'cls_data', train=train, val=val)
        train, val = self.scale.det_images
        draw_coco(self.work_dir / 'mask_rcnn_data', train=train, val=val,
                  classes=CLASSES)
        chains = list(product(self.seeds, NETWORKS))
        with ThreadPoolExecutor(self.jobs) as pool:
            futures = [pool.submit(self._chain, *chain) for chain in chains]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self._stopped = True
                for child in list(self._children):
                    child.terminate()
                raise
        done = {chain: future.result()
                for chain, future in zip(chains, futures)}
        return dict(
            seeds=list(self.seeds),
            results={network: {metric: [done[seed, network][metric]
                                        for seed in self.seeds]
                               for metric in METRICS} for network in NETWORKS},
            minutes=sum(run['seconds'] for run in done.values()) / 60)

    def _check_settings(self) -> None:
        settings = dict(scale=json.loads(json.dumps(asdict(self.scale))))
        for task, network in product(TASKS, NETWORKS):
            text = Config.fromfile(_config(task, network)).pretty_text
            settings[f'{task}_{network}'] = hashlib.sha1(
                text.encode()).hexdigest()
        path = self.work_dir / 'settings.json'
        if path.exists():
            old = json.loads(path.read_text())
            changed = [k for k in settings if old.get(k) != settings[k]]
            if changed:
                raise ValueError(
                    f'{self.work_dir} holds a study that was begun with '
                    f'other settings ({", ".join(changed)}). Choose another '
                    'work directory, or remove this one.')
        _write(path, settings)

    def _chain(self, seed: int, network: str) -> dict:
        """Pretraining and what builds on it, for one network and seed."""
        cls = self._train_and_test('cls', network, seed)
        pretrained = _last_checkpoint(self.work_dir / f'cls_{network}_{seed}')
        det = self._train_and_test(
            'mask_rcnn', network, seed,
            f'model.backbone.init_cfg.checkpoint={pretrained}')
        return {**cls, **det, 'seconds': cls['seconds'] + det['seconds']}

    def _train_and_test(self, task: str, network: str, seed: int,
                        *options: str) -> dict:
        """One network, unless that is done already."""
        folder = self.work_dir / f'{task}_{network}_{seed}'
        result_path = folder / 'result.json'
        if result_path.exists():
            return json.loads(result_path.read_text())
        options = [f'randomness.seed={seed}', *options]
        if self.scale.epochs is not None:
            options.append(f'train_cfg.max_epochs={self.scale.epochs}')
        common = ['--data-root', self.work_dir / f'{task}_data',
                  '--cfg-options', *options]
        config, metrics_path = _config(task, network), folder / 'metrics.json'
        start = time.time()
        self._tool('train', folder, config, '--no-validate', '--resume',
                   '--work-dir', folder, *common)
        self._tool('test', folder, config, _last_checkpoint(folder),
                   '--work-dir', folder / 'test', '--out-item', 'metrics',
                   '--out', metrics_path, *common)
        metrics = json.loads(metrics_path.read_text())
        result = {name: metrics[METRICS[name][1]] * METRICS[name][2]
                  for name in TASKS[task]}
        print(f'{folder.name}: ' + ', '.join(
            f'{METRICS[name][0]} {value:.1f}'
            for name, value in result.items()), flush=True)
        # Of a run that was resumed, this is the rest only.
        result['seconds'] = time.time() - start
        _write(result_path, result)
        return result

    def _tool(self, tool: str, folder: Path, *arguments) -> None:
        """Run one of the tools in a process of one thread."""
        if self._stopped:
            raise RuntimeError('stopped')
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f'{tool}.log'
        child = subprocess.Popen(
            [sys.executable, ROOT / f'tools/{tool}.py', *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=dict(os.environ, OMP_NUM_THREADS='1', PYTHONUNBUFFERED='1'))
        self._children.add(child)
        if self._stopped:
            child.terminate()
        with child, log.open('a') as file:
            for line in child.stdout:
                file.write(line)
                progress = re.search(r'Epoch\((train|test)\).*', line)
                if progress:
                    print(f'{folder.name}: {progress.group()}', flush=True)
        self._children.discard(child)
        if child.returncode and not self._stopped:
            lines = log.read_text().rstrip().splitlines()
            raise RuntimeError(
                f'tools/{tool}.py failed with exit status {child.returncode} '
                f'in {folder.name}; the end of {log}:\n'
                + '\n'.join(lines[-8:]))


def _config(task: str, network: str) -> Path:
    return ROOT / f'configs/miniature/{task}_{network}.py'


def _last_checkpoint(folder: Path) -> Path:
    return Path((folder / 'last_checkpoint').read_text().strip())


def _write(path: Path, content: dict) -> None:
    with whole_file(path) as part:
        Path(part).write_text(json.dumps(content, indent=2) + '\n')


# The report ------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """One metric of both networks, in %, one value a seed, and the paper's of
    FishNet-150 and ResNet-50."""

    title: str
    fishnet: list[float]
    resnet: list[float]
    paper: tuple[float, float]

    @property
    def differences(self) -> list[float]:
        """FishNet less ResNet, seed by seed."""
        return [a - b for a, b in zip(self.fishnet, self.resnet)]

    @property
    def paper_difference(self) -> float:
        return self.paper[0] - self.paper[1]


def compare(study: dict) -> list[Comparison]:
    """Put the results of a study beside the paper's, for each metric."""
    return [Comparison(title, *(study['results'][network][name]
                                for network in NETWORKS), paper)
            for name, (title, _, _, paper) in METRICS.items()]


def format_spread(values: Sequence[float], sign: bool = False) -> str:
    """Mean and sample standard deviation, the latter of two or more values:
    '41.5 ± 0.3'."""
    text = f'{mean(values):{"+" if sign else ""}.1f}'
    return text + (f' ± {stdev(values):.1f}' if len(values) > 1 else '')


def write_report(study: dict, out_dir: str | os.PathLike) -> Path:
    """Write ``report.md``, which is returned, and ``report.png``."""
    comparisons, seeds = compare(study), study['seeds']
    means = Cells(
        ('', 'FishNet', 'ResNet', 'difference', 'FishNet-150, paper',
         'ResNet-50, paper', 'difference, paper'),
        [(c.title, format_spread(c.fishnet), format_spread(c.resnet),
          format_spread(c.differences, sign=True), f'{c.paper[0]:.1f}',
          f'{c.paper[1]:.1f}', f'{c.paper_difference:+.1f}')
         for c in comparisons])
    single = Cells(('Seed', 'Network', *(c.title for c in comparisons)),
                   [(f'{seed}', title, *(f'{getattr(c, network)[i]:.1f}'
                                         for c in comparisons))
                    for i, seed in enumerate(seeds)
                    for network, title in NETWORKS.items()], names=2)
    path = Path(out_dir) / 'report.md'
    path.write_text(f"""# FishNet and ResNet in miniature

Both were pretrained on drawn shapes and carried into Mask R-CNN by the \
recipe of section 4.4, with {counted(len(seeds), 'seed')} each. In %; mean ± \
standard deviation over the seeds. The paper is on FishNet-150 and ResNet-50 \
on ImageNet (Figure 4) and COCO val2017 (Table 3), one run each.

{means.markdown()}
{single.markdown()}
![The same as a picture](report.png)

Training and testing took {study['minutes']:.0f} minutes of one CPU core.
""")
    draw_comparisons(comparisons, path.with_suffix('.png'))
    return path


def draw_comparisons(comparisons: Sequence[Comparison],
                     path: str | os.PathLike) -> None:
    """Draw every seed, the means, and the paper's differences."""
    figure = Figure(figsize=(9, 4), layout='constrained')
    values, gains = figure.subplots(1, 2)
    for x, c in enumerate(comparisons):
        for panel, shift, points, color, label in (
            (values, -0.12, c.fishnet, 'tab:blue', NETWORKS['fishnet']),
            (values, 0.12, c.resnet, 'tab:orange', NETWORKS['resnet']),
            (gains, -0.12, c.differences, 'tab:green', 'here')):
            panel.plot([x + shift] * len(points), points, 'o', color=color,
                       alpha=0.5)
            panel.plot(x + shift, mean(points), '_', color=color, ms=22,
                       mew=2, label=None if x else label)
        gains.plot(x + 0.12, c.paper_difference, 'D', color='0.3', mfc='none',
                   label=None if x else 'paper, full scale')
    gains.axhline(0, color='0.7', lw=1)
    values.set(ylabel='%', title='Here: every seed and the mean')
    gains.set_title('FishNet less ResNet')
    for panel in (values, gains):
        panel.set_xticks(range(len(comparisons)),
                         [c.title for c in comparisons])
        panel.set_xlim(-0.5, len(comparisons) - 0.5)
        panel.legend()
    figure.savefig(path, dpi=150)


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--work-dir', type=Path, default='work_dirs/miniature',
        help='where data, runs and the report go (default: %(default)s)')
    add('--seeds', type=int, nargs='+', default=[0, 1, 2],
        help='default: 0 1 2')
    add('--jobs', type=int, default=2,
        help='runs at a time, of one thread each (default: %(default)s)')
    add('--quick', action='store_true',
        help='an epoch on a handful of images, to see that it works')
    return parser.parse_args()


def main():
    args = parse_args()
    study = Study(args.work_dir, args.seeds, QUICK if args.quick else FULL,
                  args.jobs)
    try:
        with short_errors(ValueError, RuntimeError):
            report = write_report(study.run(), args.work_dir)
    except KeyboardInterrupt:
        raise SystemExit('\nstopped; the same command goes on.') from None
    print(f'\n{report.read_text()}\n{report.resolve()}')


if __name__ == '__main__':
    main()
