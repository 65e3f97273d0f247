# Copyright (c) mmfishnet authors. All rights reserved.
"""Make of a run's checkpoint the file that one shares, and a model card.

The file holds weights, classes and config, without optimizer, logs and paths
of this machine. `torch.load(..., weights_only=True)` reads it, as do the
inferencers of MMDetection, MMPretrain and MMSegmentation. Its name ends in
the first digits of its SHA-256, as torch.hub checks them.
"""
import argparse
import hashlib
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from mmfishnet.checkpoints import (
    CheckpointError,
    drop_pretrained,
    find_pretrained,
    read_checkpoint,
)

USAGE = dict(
    mmdet="""\
from mmdet.apis import DetInferencer
inferencer = DetInferencer(weights='{file}')
inferencer('image.jpg', out_dir='out')""",
    mmpretrain="""\
import torch
from mmengine.config import Config
from mmpretrain import ImageClassificationInferencer
meta = torch.load('{file}', weights_only=True)['meta']
config = Config.fromstring(meta['cfg'], '.py')
ImageClassificationInferencer(config, pretrained='{file}')('image.jpg')""",
    mmseg="""\
import torch
from mmengine.config import Config
from mmseg.apis import MMSegInferencer
meta = torch.load('{file}', weights_only=True)['meta']
config = Config.fromstring(meta['cfg'], '.py')
MMSegInferencer(config, weights='{file}')('image.jpg', out_dir='out')""")
TASKS = dict(
    mmdet='detection', mmpretrain='classification', mmseg='segmentation')
BUFFERS = ('running_mean', 'running_var', 'num_batches_tracked')


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'checkpoint', type=Path, help='a checkpoint that train.py left')
    parser.add_argument('out_dir', type=Path, help='where the files go')
    parser.add_argument(
        '--name', help="the files' name (default: that of the run's config)")
    parser.add_argument(
        '--no-ema',
        action='store_true',
        help='the weights that were trained, and not their moving average '
        '(only of runs with an EMAHook)')
    parser.add_argument(
        '--safetensors',
        action='store_true',
        help='write a .safetensors file, and not a .pth file')
    parser.add_argument(
        '--metrics',
        type=Path,
        metavar='FILE',
        help='what `test.py --out FILE --out-item metrics` wrote for this '
        'checkpoint (default: its validation during training)')
    return parser.parse_args()


def plain(value):
    """Containers, numbers and strings alone."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    return str(value)


def choose_weights(checkpoint, no_ema):
    """The weights, and whether they are a moving average."""
    state = dict(checkpoint['state_dict'])
    # MMEngine saves the average as state_dict, and here what was trained.
    trained = checkpoint.get('ema_state_dict')
    if no_ema:
        if trained is None:
            raise ValueError('--no-ema: the checkpoint is of a run without '
                             'EMAHook; its weights are no average.')
        state.update({
            key.removeprefix('module.'): value
            for key, value in trained.items() if key.startswith('module.')
        })
    state = {key: value.contiguous().clone() for key, value in state.items()}
    return state, trained is not None and not no_ema


def clean(cfg):
    """Take out of a config what concerns the run and its machine alone.

    Returns:
        list[str]: The files of weights from which the training started.
    """
    started = [init['checkpoint'] for init in find_pretrained(cfg.model)]
    started += [cfg.load_from] if cfg.get('load_from') else []
    drop_pretrained(cfg.model)
    cfg.load_from, cfg.resume, cfg.launcher = None, False, 'none'
    cfg.pop('work_dir', None)
    return started


def numbers(metrics):
    return {
        key: value
        for key, value in metrics.items()
        if isinstance(value, (int, float))
        and key not in ('data_time', 'time', 'step', 'epoch', 'iter')
    }


def validation_metrics(checkpoint, cfg, meta):
    """What the run's own log says of the checkpoint, or {}."""
    by_epoch = cfg.get('train_cfg', {}).get('by_epoch') or cfg.get(
        'train_cfg', {}).get('type') == 'EpochBasedTrainLoop'
    step = meta.get('epoch' if by_epoch else 'iter')
    found = {}
    logs = checkpoint.parent.glob('*/vis_data/scalars.json')
    for log in sorted(logs, key=os.path.getmtime):
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            # Those of training have a learning rate.
            if 'lr' not in entry and entry.get('step') == step:
                found = numbers(entry) or found
    return found


def describe_data(loader):
    """'CocoDataset, data/coco/annotations/instances_val2017.json'."""
    dataset = loader['dataset']
    while 'dataset' in dataset:  # wrapped
        dataset = dataset['dataset']
    parts = [dataset.get('ann_file') or '']
    prefix = dataset.get('data_prefix') or {}
    parts += prefix.values() if isinstance(prefix, dict) else [prefix]
    files = ', '.join(part for part in parts if part)
    return f'{dataset["type"].split(".")[-1]} ({files})'


def card(name, file, digest, size, cfg, meta, state, averaged, started,
         metrics, split):
    """The model card, in Markdown."""
    scope = cfg.get('default_scope')
    weights = [v.numel() for k, v in state.items() if not k.endswith(BUFFERS)]
    backbone = cfg.model.get('backbone', {})
    depth = backbone.get('depth', '')
    optim = cfg.get('optim_wrapper', {}).get('optimizer', {})
    facts = {
        'File': f'`{file}`, {size / 2**20:.1f} MiB',
        'SHA-256': f'`{digest}`',
        'Task': TASKS.get(scope, scope),
        'Model': f'{cfg.model.type} with {backbone.get("type")}'
        + (f', depth {depth}' if depth else ''),
        'Parameters': f'{sum(weights):,}',
        'Weights': 'moving average of the trained' if averaged else 'trained',
        'Training data': describe_data(cfg.train_dataloader),
        'Classes': len(meta.get('dataset_meta', {}).get('classes', '')),
        'Trained': f'{meta.get("epoch")} epochs, {meta.get("iter")} '
        f'iterations of {cfg.train_dataloader.get("batch_size")} images a '
        f'process; {optim.get("type")}, learning rate {optim.get("lr")}, '
        f'seed {meta.get("seed")}',
        'Started from': ', '.join(f'`{Path(s).name}`' for s in started)
        or 'random weights',
        'Made with': f'MMEngine {meta.get("mmengine_version")}, '
        f'mmfishnet {meta["mmfishnet_version"]}',
    }
    lines = [f'# {name}', '', '| | |', '|---|---|']
    lines += [f'| {key} | {value} |' for key, value in facts.items()]
    lines += ['', '## Results', '']
    if metrics:
        evaluator = cfg.get(f'{split}_evaluator')
        kinds = ', '.join(
            part['type'].split('.')[-1] for part in
            (evaluator if isinstance(evaluator, (list, tuple)) else
             [evaluator]))
        when = ("in the run's own validation of these weights"
                if split == 'val' else 'by `tools/test.py`')
        lines += [
            f'Measured {when} on {describe_data(cfg[split + "_dataloader"])}, '
            f'by {kinds}.', '', '| metric | value |', '|---|---|'
        ]
        lines += [f'| {key} | {value:g} |' for key, value in metrics.items()]
    else:
        lines.append('Not measured.')
    if scope in USAGE:
        usage = USAGE[scope].format(file=file)
        if file.endswith('.safetensors'):
            usage = ('from safetensors.torch import load_file\n'
                     f"state_dict = load_file('{file}')")
        lines += ['', '## Use', '', '```python', usage, '```']
    lines += ['', '## Config', '', '```python', cfg.pretty_text.strip(), '```']
    return '\n'.join(lines) + '\n'


def write(path, content):
    """The whole file or none."""
    partial = path.with_name(path.name + '.partial')
    partial.write_bytes(content)
    partial.replace(path)


def publish(args):
    checkpoint = read_checkpoint(args.checkpoint)
    meta = checkpoint.get('meta', {}) if isinstance(checkpoint, dict) else {}
    if 'state_dict' not in checkpoint or 'cfg' not in meta:
        raise ValueError(
            f'{args.checkpoint} holds no state_dict and meta.cfg, as '
            'checkpoints of a run of MMEngine do. Weights alone are converted '
            'by tools/convert_checkpoint.py.')
    state, averaged = choose_weights(checkpoint, args.no_ema)
    cfg = Config.fromstring(meta['cfg'], '.py')
    if args.metrics:
        metrics, split = numbers(json.loads(args.metrics.read_text())), 'test'
    else:
        # The log is of the average, where there is one.
        metrics, split = {}, 'val'
        if not args.no_ema:
            metrics = validation_metrics(args.checkpoint, cfg, meta)
    started = clean(cfg)
    from mmfishnet.version import __version__
    keep = ('epoch', 'iter', 'seed', 'mmengine_version', 'dataset_meta')
    meta = plain({key: meta[key] for key in keep if key in meta}) | dict(
        cfg=cfg.pretty_text,
        experiment_name=meta.get('experiment_name', ''),
        mmfishnet_version=__version__)
    name = args.name or re.sub(r'_\d{8}_\d{6}$', '', meta['experiment_name'])
    if not name or '/' in name:
        raise ValueError(f'--name {name!r} should be the name of a file.')

    if args.safetensors:
        # Optional, so it is imported where it is asked for.
        from safetensors.torch import save
        content = save(
            state,
            {'format': 'pt'} | {k: v if isinstance(v, str) else json.dumps(v)
                                for k, v in meta.items()})
        suffix = '.safetensors'
    else:
        buffer = io.BytesIO()
        torch.save(dict(meta=meta, state_dict=state), buffer)
        content, suffix = buffer.getvalue(), '.pth'
    digest = hashlib.sha256(content).hexdigest()
    args.out_dir.mkdir(parents=True, exist_ok=True)
    path = args.out_dir / f'{name}-{digest[:8]}{suffix}'
    write(path, content)
    text = card(name, path.name, digest, len(content), cfg, meta, state,
                averaged, started, metrics, split)
    write(path.with_suffix('.md'), text.encode())
    return path


def main():
    args = parse_args()
    try:
        path = publish(args)
    except ImportError as error:
        raise SystemExit(
            f'error: {error}; `pip install safetensors`') from None
    except (CheckpointError, OSError, ValueError) as error:
        raise SystemExit(f'error: {error}') from None
    print(f'Wrote {path} and, beside it, the model card '
          f'{path.with_suffix(".md").name}.')


if __name__ == '__main__':
    main()
