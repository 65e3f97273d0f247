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

import mmfishnet
from mmfishnet.checkpoints import (
    CheckpointError,
    drop_pretrained,
    find_pretrained,
    read_checkpoint,
)
from mmfishnet.kinds import dicts_in, scope_of, type_name
from mmfishnet.whole_file import whole_file
from mmfishnet.work_dir import config_in, read_run, values_in

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
    add = parser.add_argument
    add('checkpoint', type=Path, help='a checkpoint that train.py left')
    add('out_dir', type=Path, help='where the files go')
    add('--name', help="the files' name (default: that of the run's config)")
    add('--no-ema', action='store_true',
        help='the weights that were trained, and not their moving average '
        '(only of runs with an EMAHook)')
    add('--safetensors', action='store_true',
        help='write a .safetensors file, and not a .pth file')
    add('--backbone', action='store_true',
        help='the weights of the backbone alone, for others to begin with')
    add('--metrics', type=Path, metavar='FILE',
        help='what `test.py --out FILE --out-item metrics` wrote for this '
        'checkpoint (default: its validation during training)')
    return parser.parse_args()


def plain(value):
    """Containers, numbers and strings alone."""
    def other(value):
        if isinstance(value, (np.ndarray, np.generic)):
            return value.tolist()
        return list(value) if isinstance(value, set) else str(value)
    return json.loads(json.dumps(value, default=other))


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
    roots = {os.path.join(os.path.dirname(part['data_root'].rstrip('/')), '')
             for part in dicts_in(dict(cfg.items()))
             if os.path.isabs(part.get('data_root') or '')}
    for key, value in cfg.items():
        cfg[key] = without_places(value, roots)
    return started


def without_places(value, roots):
    """The same, with paths of this machine cut: what is of a data set begins
    with its folder, of others the name is left."""
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = without_places(item, roots)
    elif isinstance(value, (list, tuple)):
        return type(value)(without_places(item, roots) for item in value)
    elif isinstance(value, str) and os.path.isabs(value):
        root = next(filter(value.startswith, roots), None)
        end = '/' * (len(value) > 1 and value.endswith('/'))
        return value.removeprefix(root) if root else (
            os.path.basename(value.rstrip('/')) + end)
    return value


def validation_metrics(checkpoint, meta):
    """What the run's own log says of the checkpoint, or {}."""
    try:
        return read_run(checkpoint.parent).evaluation_of(meta)
    except FileNotFoundError:  # a file that was taken out of its run
        return {}


def describe_data(loader):
    """'CocoDataset (coco: annotations/instances_val2017.json, val2017/)', of
    all data sets that wrappers hold."""
    found = {}
    for part in dicts_in(loader['dataset']):
        if 'type' not in part or not {'ann_file', 'data_prefix', 'data_root',
                                      'pipeline'} & set(part) or (
                'dataset' in part or 'datasets' in part):
            continue  # a wrapper around them, or a part of them
        prefix = part.get('data_prefix') or {}
        parts = [part.get('ann_file'), *(
            prefix.values() if isinstance(prefix, dict) else [prefix])]
        files = ', '.join(str(name) for name in parts if name)
        root = os.path.basename(str(part.get('data_root') or '').rstrip('/'))
        found[f'{type_name(part)} ({root}{": " if root else ""}{files})'
              ] = None
    return ', '.join(found) or type_name(loader['dataset'])


def describe_model(cfg, meta, state):
    """What it is and how it was trained, by title."""
    backbone = next((part['backbone'] for part in dicts_in(cfg.model)
                     if isinstance(part.get('backbone'), dict)), {})
    depth = backbone.get('depth', '')
    loader = cfg.train_dataloader
    optim = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    scope = scope_of(cfg)
    weights = [v.numel() for k, v in state.items() if not k.endswith(BUFFERS)]
    return {
        'Task': TASKS.get(scope, scope),
        'Model': type_name(cfg.model)
        + (f' with {type_name(backbone)}' if backbone else '')
        + (f', depth {depth}' if depth else ''),
        'Parameters': f'{sum(weights):,}',
        'Training data': describe_data(loader),
        'Classes': len(meta.get('dataset_meta', {}).get('classes', '')),
        'Trained': f'{meta.get("epoch")} epochs, {meta.get("iter")} '
        f'iterations of {loader.get("batch_size")} images a process; '
        f'{type_name(optim)}, learning rate {optim.get("lr")}, '
        f'seed {meta.get("seed")}',
        # Behind it MMEngine writes the commit of the current folder.
        'Made with': 'MMEngine ' + re.sub(
            r'([0-9a-f]{40}|unknown)$', '', str(meta.get('mmengine_version')))
        + ', '
        f'mmfishnet {meta["mmfishnet_version"]}',
    }


def describe_results(cfg, metrics, split):
    """What was measured, on what and by what, in lines of Markdown."""
    if not metrics:
        return ['Not measured.']
    evaluator = cfg.get(f'{split}_evaluator')
    kinds = ', '.join(map(type_name, evaluator if isinstance(
        evaluator, (list, tuple)) else [evaluator]))
    when = ("in the run's own validation of these weights"
            if split == 'val' else 'by `tools/test.py`')
    return [f'Measured {when} on {describe_data(cfg[split + "_dataloader"])}, '
            f'by {kinds}.', '', '| metric | value |', '|---|---|',
            *(f'| {key} | {value:g} |' for key, value in metrics.items())]


def card(path, facts, results, cfg):
    """The model card, in Markdown."""
    scope = scope_of(cfg)
    lines = [f'# {path.stem.rpartition("-")[0]}', '', '| | |', '|---|---|']
    lines += [f'| {key} | {value} |' for key, value in facts.items()]
    lines += ['', '## Results', '', *results]
    if scope in USAGE:
        usage = USAGE[scope].format(file=path.name)
        if path.suffix == '.safetensors':
            usage = ('from safetensors.torch import load_file\n'
                     f"state_dict = load_file('{path.name}')")
        lines += ['', '## Use', '', '```python', usage, '```']
    lines += ['', '## Config', '', '```python', cfg.pretty_text.strip(), '```']
    return '\n'.join(lines) + '\n'


def to_bytes(state, meta, safetensors):
    """The file, and how its name ends."""
    if safetensors:
        # Optional, so it is imported where it is asked for.
        from safetensors.torch import save
        texts = {k: v if isinstance(v, str) else json.dumps(v)
                 for k, v in meta.items()}
        return save(state, {'format': 'pt', **texts}), '.safetensors'
    buffer = io.BytesIO()
    torch.save(dict(meta=meta, state_dict=state), buffer)
    return buffer.getvalue(), '.pth'


def publish(args):
    checkpoint = read_checkpoint(args.checkpoint)
    try:
        cfg, meta = config_in(checkpoint, args.checkpoint), checkpoint['meta']
        checkpoint['state_dict']
    except (KeyError, ValueError):
        raise ValueError(
            f'{args.checkpoint} holds no state_dict and meta.cfg, as '
            'checkpoints of a run of MMEngine do. Weights alone are converted '
            'by tools/convert_checkpoint.py.') from None
    state, averaged = choose_weights(checkpoint, args.no_ema)
    if args.backbone:
        state = {key.removeprefix('backbone.'): value
                 for key, value in state.items()
                 if key.startswith('backbone.')
                 and not key.endswith('num_batches_tracked')}
    metrics, split = {}, 'val'
    if args.metrics:
        metrics = values_in(json.loads(args.metrics.read_text()))
        split = 'test'
    elif not args.no_ema:  # the log is of the average, where there is one
        metrics = validation_metrics(args.checkpoint, meta)
    started = clean(cfg)
    keep = ('epoch', 'iter', 'seed', 'mmengine_version', 'dataset_meta')
    meta = plain({key: meta[key] for key in keep if key in meta}) | dict(
        cfg=cfg.pretty_text,
        experiment_name=meta.get('experiment_name', ''),
        mmfishnet_version=mmfishnet.__version__)
    name = args.name or re.sub(r'_\d{8}_\d{6}$', '', meta['experiment_name'])
    if not name or '/' in name:
        raise ValueError(f'--name {name!r} should be the name of a file.')

    content, suffix = to_bytes(state, meta, args.safetensors)
    digest = hashlib.sha256(content).hexdigest()
    path = args.out_dir / f'{name}-{digest[:8]}{suffix}'
    facts = {
        'File': f'`{path.name}`, {len(content) / 2**20:.1f} MiB',
        'SHA-256': f'`{digest}`', **describe_model(cfg, meta, state),
        'Weights': 'moving average of the trained' if averaged else 'trained',
        'Started from': ', '.join(f'`{Path(s).name}`' for s in started)
        or 'random weights'}
    text = card(path, facts, describe_results(cfg, metrics, split), cfg)
    for target, data in ((path, content),
                         (path.with_suffix('.md'), text.encode())):
        with whole_file(target) as part:
            Path(part).write_bytes(data)
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
