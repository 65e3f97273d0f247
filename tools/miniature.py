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
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, stdev

from mmengine.config import Config

from mmfishnet.datasets import CLASSES, draw_classification, draw_coco

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = dict(fishnet='FishNet', resnet='ResNet')

# Name of a metric -> its title, what tools/test.py calls it, the factor that
# makes it a percentage, and the paper's numbers for FishNet-150 and ResNet-50
# (the authors' own, marked with a dagger in Table 3): Figure 4 and Table 3.
METRICS = dict(
    top1=('Top-1 accuracy', 'accuracy/top1', 1, (78.07, 76.22)),
    box_ap=('Box AP', 'coco/bbox_mAP', 100, (41.5, 38.7)),
    mask_ap=('Mask AP', 'coco/segm_mAP', 100, (37.0, 34.7)))
TASKS = dict(cls=('top1', ), mask_rcnn=('box_ap', 'mask_ap'))

RESULT = 'result.json'
SETTINGS = 'settings.json'


@dataclass(frozen=True)
class Scale:
    """How much is drawn and trained.

    Attributes:
        cls_images (tuple[int]): Images to pretrain on and to evaluate on.
        det_images (tuple[int]): Images of the detection set, likewise.
        cls_epochs (int, optional): Epochs of pretraining; None for those of
            the config. Defaults to None.
        det_epochs (int, optional): Epochs of Mask R-CNN, likewise.
            Defaults to None.
    """

    cls_images: tuple[int, int]
    det_images: tuple[int, int]
    cls_epochs: int | None = None
    det_epochs: int | None = None


FULL = Scale(cls_images=(3600, 960), det_images=(480, 160))
QUICK = Scale(
    cls_images=(36, 12), det_images=(8, 4), cls_epochs=1, det_epochs=1)


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

    def __init__(self,
                 work_dir: str | os.PathLike,
                 seeds: Sequence[int] = (0, 1, 2),
                 scale: Scale = FULL,
                 jobs: int = 2) -> None:
        self.work_dir = Path(work_dir)
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

        Raises:
            ValueError: If the folder holds a study of another scale, or one
                that was begun with other configs.
            RuntimeError: If a run fails.
        """
        self._check_settings()
        for draw, name, (train, val) in (
            (draw_classification, 'shapes_cls', self.scale.cls_images),
            (partial(draw_coco, classes=CLASSES), 'shapes',
             self.scale.det_images)):
            draw(self.work_dir / name, train=train, val=val)

        chains = list(product(self.seeds, NETWORKS))
        with ThreadPoolExecutor(self.jobs) as pool:
            futures = [pool.submit(self._chain, *chain) for chain in chains]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self._stop()
                raise
        runs = [future.result() for future in futures]
        results = {network: {} for network in NETWORKS}
        for (_, network), run in zip(chains, runs):
            for metric in METRICS:
                results[network].setdefault(metric, []).append(run[metric])
        return dict(
            seeds=list(self.seeds),
            results=results,
            minutes=sum(run['seconds'] for run in runs) / 60)

    def _check_settings(self) -> None:
        settings = dict(scale=json.loads(json.dumps(asdict(self.scale))))
        for task, network in product(TASKS, NETWORKS):
            text = json.dumps(self._config(task, network).to_dict())
            settings[f'{task}_{network}'] = hashlib.sha1(
                text.encode()).hexdigest()
        path = self.work_dir / SETTINGS
        if path.exists():
            old = json.loads(path.read_text())
            changed = [key for key in settings if old.get(key) !=
                       settings[key]]
            if changed:
                raise ValueError(
                    f'{self.work_dir} holds a study that was begun with '
                    f'other settings ({", ".join(changed)}). Choose another '
                    'work directory, or remove this one.')
        self.work_dir.mkdir(parents=True, exist_ok=True)
        _write(path, settings)

    def _config(self, task: str, network: str) -> Config:
        return Config.fromfile(self._config_path(task, network))

    def _config_path(self, task: str, network: str) -> Path:
        return ROOT / f'configs/miniature/{task}_{network}.py'

    def _chain(self, seed: int, network: str) -> dict:
        """Pretraining and what builds on it, for one network and seed."""
        pretrained = self.work_dir / f'cls_{network}_{seed}'
        cls = self._run('cls', network, seed, 'shapes_cls',
                        self.scale.cls_epochs)
        det = self._run('mask_rcnn', network, seed, 'shapes',
                        self.scale.det_epochs,
                        f'model.backbone.init_cfg.checkpoint='
                        f'{_last_checkpoint(pretrained)}')
        return {**cls, **det, 'seconds': cls['seconds'] + det['seconds']}

    def _run(self, task: str, network: str, seed: int, data: str,
             epochs: int | None, *options: str) -> dict:
        """Train and test one network, unless that is done already."""
        folder = self.work_dir / f'{task}_{network}_{seed}'
        result_path = folder / RESULT
        if result_path.exists():
            return json.loads(result_path.read_text())
        options = [f'randomness.seed={seed}', *options]
        if epochs is not None:
            options.append(f'train_cfg.max_epochs={epochs}')
        common = [
            '--data-root',
            str(self.work_dir / data), '--cfg-options', *options
        ]
        config = str(self._config_path(task, network))
        start = time.time()
        self._tool('train.py', folder, config, '--no-validate', '--resume',
                   '--work-dir', str(folder), *common)
        metrics_path = folder / 'metrics.json'
        self._tool('test.py', folder, config, str(_last_checkpoint(folder)),
                   '--work-dir', str(folder / 'test'), '--out-item', 'metrics',
                   '--out', str(metrics_path), *common)
        metrics = json.loads(metrics_path.read_text())
        result = {
            name: metrics[METRICS[name][1]] * METRICS[name][2]
            for name in TASKS[task]
        }
        print(f'{folder.name}: ' + ', '.join(
            f'{METRICS[name][0]} {value:.1f}'
            for name, value in result.items()), flush=True)
        # Of a run that was resumed, this is the rest only.
        result['seconds'] = time.time() - start
        _write(result_path, result)
        return result

    def _tool(self, tool: str, folder: Path, *arguments: str) -> None:
        """Run one of the tools in a process of one thread."""
        if self._stopped:
            raise RuntimeError('stopped')
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f'{tool[:-3]}.log'
        env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONUNBUFFERED='1')
        child = subprocess.Popen(
            [sys.executable, str(ROOT / 'tools' / tool), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env)
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
                f'tools/{tool} failed with exit status {child.returncode} in '
                f'{folder.name}; the end of {log}:\n' + '\n'.join(lines[-8:]))

    def _stop(self) -> None:
        self._stopped = True
        for child in list(self._children):
            child.terminate()


def _last_checkpoint(folder: Path) -> Path:
    return Path((folder / 'last_checkpoint').read_text().strip())


def _write(path: Path, content: dict) -> None:
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(content, indent=2) + '\n')
    partial.replace(path)


# The report ------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """One metric of both networks, in %.

    Attributes:
        title (str): Name of the metric.
        fishnet (list[float]): One value a seed.
        resnet (list[float]): One value a seed, of the same seeds.
        paper (tuple[float]): The paper's, of FishNet-150 and ResNet-50.
    """

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
    """Put the results of a study beside the paper's.

    Args:
        study (dict): What :meth:`Study.run` returned.

    Returns:
        list[Comparison]: One for each of :data:`METRICS`.
    """
    results = study['results']
    return [
        Comparison(title, results['fishnet'][name], results['resnet'][name],
                   paper) for name, (title, _, _, paper) in METRICS.items()
    ]


def format_spread(values: Sequence[float], sign: bool = False) -> str:
    """Mean and sample standard deviation, the latter of two or more values.

    Args:
        values (Sequence[float]): In %.
        sign (bool): Whether to write a plus. Defaults to False.

    Returns:
        str: Such as '41.5 ± 0.3'.
    """
    text = f'{mean(values):{"+" if sign else ""}.1f}'
    return text + (f' ± {stdev(values):.1f}' if len(values) > 1 else '')


def write_report(study: dict, out_dir: str | os.PathLike) -> Path:
    """Write ``report.md`` and ``report.png``.

    Args:
        study (dict): What :meth:`Study.run` returned.
        out_dir (str | os.PathLike): Folder to write to.

    Returns:
        Path: The Markdown file.
    """
    out_dir = Path(out_dir)
    comparisons = compare(study)
    seeds = study['seeds']
    lines = [
        '# FishNet and ResNet in miniature', '',
        f'Both were pretrained on drawn shapes and carried into Mask R-CNN by '
        f'the recipe of section 4.4, with {len(seeds)} seed'
        f'{"s" if len(seeds) > 1 else ""} each. In %; mean ± standard '
        'deviation over the seeds. The paper is on FishNet-150 and '
        'ResNet-50 on ImageNet (Figure 4) and COCO val2017 (Table 3), one '
        'run each.', '',
        '| | FishNet | ResNet | difference | FishNet-150, paper '
        '| ResNet-50, paper | difference, paper |',
        '|---|---|---|---|---|---|---|'
    ]
    for c in comparisons:
        lines.append(
            f'| {c.title} | {format_spread(c.fishnet)} '
            f'| {format_spread(c.resnet)} '
            f'| {format_spread(c.differences, sign=True)} '
            f'| {c.paper[0]:.1f} | {c.paper[1]:.1f} '
            f'| {c.paper_difference:+.1f} |')
    lines += ['', '| Seed | Network | ' + ' | '.join(
        c.title for c in comparisons) + ' |', '|---' * 5 + '|']
    for i, seed in enumerate(seeds):
        for network, title in NETWORKS.items():
            values = [getattr(c, network)[i] for c in comparisons]
            lines.append(f'| {seed} | {title} | ' + ' | '.join(
                f'{value:.1f}' for value in values) + ' |')
    lines += [
        '', '![The same as a picture](report.png)', '',
        f'Training and testing took {study["minutes"]:.0f} minutes of one '
        'CPU core.', ''
    ]
    path = out_dir / 'report.md'
    path.write_text('\n'.join(lines))
    plot(comparisons, out_dir / 'report.png')
    return path


def plot(comparisons: Sequence[Comparison], path: str | os.PathLike) -> None:
    """Draw every seed, the means, and the paper's differences.

    Args:
        comparisons (Sequence[Comparison]): What :func:`compare` returned.
        path (str | os.PathLike): PNG file to write.
    """
    from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 4), layout='constrained')
    values, gains = figure.subplots(1, 2)
    colours = dict(fishnet='tab:blue', resnet='tab:orange')
    for x, c in enumerate(comparisons):
        for shift, (network, title) in zip((-0.12, 0.12), NETWORKS.items()):
            points = getattr(c, network)
            colour = colours[network]
            values.plot([x + shift] * len(points), points, 'o', color=colour,
                        alpha=0.5)
            values.plot(x + shift, mean(points), '_', color=colour, ms=22,
                        mew=2, label=None if x else title)
        gains.plot([x - 0.12] * len(c.differences), c.differences, 'o',
                   color='tab:green', alpha=0.5)
        gains.plot(x - 0.12, mean(c.differences), '_', color='tab:green',
                   ms=22, mew=2, label=None if x else 'here')
        gains.plot(x + 0.12, c.paper_difference, 'D', color='0.3', mfc='none',
                   label=None if x else 'paper, full scale')
    gains.axhline(0, color='0.7', lw=1)
    values.set_ylabel('%')
    values.set_title('Here: every seed and the mean')
    gains.set_title('FishNet less ResNet')
    for axes in (values, gains):
        axes.set_xticks(range(len(comparisons)),
                        [c.title for c in comparisons])
        axes.set_xlim(-0.5, len(comparisons) - 0.5)
        axes.legend()
    figure.savefig(path, dpi=150)


# The command -----------------------------------------------------------------


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--work-dir',
        type=Path,
        default='work_dirs/miniature',
        help='where data, runs and the report go (default: %(default)s)')
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        default=[0, 1, 2],
        help='default: 0 1 2')
    parser.add_argument(
        '--jobs',
        type=int,
        default=2,
        help='runs at a time, of one thread each (default: %(default)s)')
    parser.add_argument(
        '--quick',
        action='store_true',
        help='an epoch on a handful of images, to see that it works')
    return parser.parse_args()


def main():
    args = parse_args()
    study = Study(
        args.work_dir.resolve(),
        seeds=args.seeds,
        scale=QUICK if args.quick else FULL,
        jobs=args.jobs)
    try:
        report = write_report(study.run(), args.work_dir)
    except (ValueError, RuntimeError) as error:
        raise SystemExit(f'miniature.py: {error}') from None
    except KeyboardInterrupt:
        raise SystemExit(
            '\nminiature.py: stopped; the same command goes on.') from None
    print(f'\n{report.read_text()}\n{report.resolve()}')


if __name__ == '__main__':
    main()
