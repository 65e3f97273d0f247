# Copyright (c) mmfishnet authors. All rights reserved.
"""FishNet and a ResNet of as many parameters on photographs.

Both are pretrained alike on classes of pictures, then find objects in others,
from these weights and from scratch, with several seeds. The two configs are
those that tools/dataset_tools/own_data.py writes for folders of classes and
for outlined objects. If it is stopped, the same command goes on.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmfishnet.engine.errors import short_errors
from mmfishnet.whole_file import whole_file
from mmfishnet.words import counted
from mmfishnet.work_dir import Run, read_run
from step_memory import measure_kept_bytes
from tables import MIB, Cells

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = dict(fishnet='FishNet', resnet='ResNet')
PRETRAIN, FROM = 'pretrain', dict(scratch='from scratch',
                                  pretrained='pretrained')
METRICS = {'accuracy/top1': ('Top-1', 1), 'coco/bbox_mAP': ('Box AP', 100),
           'coco/segm_mAP': ('Mask AP', 100)}


def variant(config: str, network: str, checkpoint: str | None = None
            ) -> Config:
    """A config over one of ``configs/small`` with one of the networks, its
    backbone beginning with a classifier's checkpoint or with noise."""
    cfg = Config.fromfile(config)
    if network == 'resnet':
        indices = cfg.model.backbone.get('out_indices', (0, 1, 2, 3))
        channels = cfg.small_resnet_channels
        cfg.model.backbone = dict(cfg.small_resnet, out_indices=indices)
        if cfg.default_scope == 'mmpretrain':
            cfg.model.neck = dict(type='GlobalAveragePooling')
            cfg.model.head.in_channels = channels[indices[-1]]
        else:
            cfg.model.neck.in_channels = channels
    cfg.model.backbone.init_cfg = checkpoint and dict(
        type='Pretrained', checkpoint=checkpoint, prefix='backbone.')
    cfg.custom_hooks = None  # all train to the end
    return cfg


def run_study(pretraining: str, task: str, work_dir: Path,
              networks: Sequence[str], seeds: Sequence[int],
              jobs: int) -> dict[tuple, Run]:
    """Pretrain, and train with and without, for every network and seed; what
    is done already is not done again.

    Returns:
        dict[tuple, Run]: By what was trained, network and seed.
    """
    configs = {PRETRAIN: pretraining, **dict.fromkeys(FROM, task)}
    work_dir.mkdir(parents=True, exist_ok=True)

    def train(kind, network, seed):
        checkpoint = None
        if kind == 'pretrained':
            checkpoint = runs[PRETRAIN, network, seed].checkpoint
        cfg = variant(configs[kind], network, checkpoint)
        cfg.randomness = dict(seed=seed)
        return _train(cfg, work_dir.resolve() / f'{kind}_{network}_{seed}')

    runs = {}
    with ThreadPoolExecutor(jobs) as pool:
        for kinds in (PRETRAIN, ), FROM:
            names = list(product(kinds, networks, seeds))
            runs |= zip(names, pool.map(train, *zip(*names)))
    return runs


def _train(cfg: Config, folder: Path) -> Run:
    run = _finished(folder, cfg)
    if run is None:
        path = folder.with_suffix('.py')
        with whole_file(path) as part:
            Path(part).write_text(cfg.pretty_text)
        with open(folder.with_suffix('.log'), 'a') as log:
            done = subprocess.run(
                [sys.executable, ROOT / 'tools/train.py', path, '--resume',
                 '--work-dir', folder], stdout=log, stderr=log,
                env={**os.environ, 'OMP_NUM_THREADS': '1'})
        if done.returncode:
            raise RuntimeError(f'{folder.name} ended with exit status '
                               f'{done.returncode}; see {log.name}')
        run = read_run(folder)
    print(f'{folder.name}: ' + ', '.join(
        f'{METRICS[name][0]} {value * METRICS[name][1]:.1f}'
        for name, value in run.metrics.items() if name in METRICS),
        flush=True)
    return run


def _finished(folder: Path, cfg: Config) -> Run | None:
    """The training in a folder, if it came to its end."""
    try:
        run = read_run(folder)
    except FileNotFoundError:
        return None
    done = run.val and run.place(run.val[-1]) >= cfg.train_cfg.max_epochs
    return run if done else None


def spread(values: Sequence[float], form: str = '.1f') -> str:
    """Mean and, of two or more, the sample's standard deviation."""
    text = f'{mean(values):{form}}'
    return text + (f' ± {stdev(values):.1f}' if len(values) > 1 else '')


def kept(run: Run) -> float:
    """What a run's backbone keeps of a training forward of 256x256 pixels,
    in MiB."""
    torch.manual_seed(0)
    cfg = dict(run.config.model.backbone, init_cfg=None)
    with torch.device('meta'):
        return measure_kept_bytes(
            MODELS.build(cfg), torch.zeros(1, 3, 256, 256)) / MIB


def tables(runs: dict[tuple, Run]) -> list[Cells]:
    """Means of the seeds, and each of them, of what a study has trained."""
    networks = list(dict.fromkeys(network for _, network, _ in runs))
    seeds = list(dict.fromkeys(seed for _, _, seed in runs))
    values = {}  # by title, and by network and seed
    for (kind, network, seed), run in runs.items():
        for name in filter(METRICS.get, run.metrics):
            title, factor = METRICS[name]
            title += f', {FROM[kind]}' if kind in FROM else ''
            values.setdefault(title, {})[network, seed] = (
                factor * run.metrics[name])
    rows = []
    for title, found in values.items():
        of = [[found[network, seed] for seed in seeds]
              for network in networks]
        rows.append([title, *map(spread, of)])
        if len(networks) == 2:
            rows[-1].append(spread([a - b for a, b in zip(*of)], '+.1f'))
    first = [runs['scratch', network, seeds[0]] for network in networks]
    rest = [''] * (len(networks) == 2)
    rows += [['Seconds a step, one core', *(
        f'{mean(e["time"] for e in run.train if "time" in e):.2f}'
        for run in first), *rest],
        ['MiB kept of an image of 256x256', *(
            f'{kept(run):.1f}' for run in first), *rest]]
    names = [NETWORKS[network] for network in networks]
    return [
        Cells(['', *names, *(['difference'] if rest else [])], rows),
        Cells(['Seed', 'Network', *values],
              [[f'{seed}', NETWORKS[network], *(
                  f'{of[network, seed]:.1f}' for of in values.values())]
               for seed in seeds for network in networks], names=2)]


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('pretraining', help='config of own_data.py for folders of classes')
    add('task', help='config of own_data.py for outlined objects')
    add('--work-dir', type=Path, default='work_dirs/photographs',
        help='where runs and report go (default: %(default)s)')
    add('--networks', nargs='+', choices=NETWORKS, default=list(NETWORKS),
        help='default: both')
    add('--seeds', type=int, nargs='+', default=[0, 1, 2],
        help='default: 0 1 2')
    add('--jobs', type=int, default=2,
        help='trainings at a time, of one thread each (default: %(default)s)')
    return parser.parse_args()


def main():
    args = parse_args()
    with short_errors(OSError, ValueError, RuntimeError):
        runs = run_study(**vars(args))
        means, single = tables(runs)
    path = args.work_dir / 'report.md'
    path.write_text(
        f'In %, mean and standard deviation over '
        f'{counted(len(args.seeds), "seed")}.\n\n'
        f'{means.markdown()}\n{single.markdown()}')
    print(f'\n{path.read_text()}\n{path.resolve()}')


if __name__ == '__main__':
    main()
