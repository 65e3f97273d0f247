# Copyright (c) mmfishnet authors. All rights reserved.
"""Test (and evaluate) a model of an MMDetection or MMPretrain config."""
import argparse

import mmengine
from mmengine.dist import is_main_process
from mmengine.registry import METRICS
from torch.distributed.elastic.multiprocessing.errors import record

import mmfishnet  # noqa: F401 (registers FishNet)
from mmfishnet.checkpoints import CheckpointError, use_safe_loading
from mmfishnet.checks import CheckError, checked
from mmfishnet.engine.arguments import add_common_arguments, load_config
from mmfishnet.engine.build import build_runner
from mmfishnet.engine.errors import one_speaks, short_errors
from mmfishnet.engine.exact.resume import open_checkpoint
from mmfishnet.engine.faults import ConfigError, config_faults
from mmfishnet.engine.from_scratch import follow_checkpoint
from mmfishnet.engine.launch import explain_lost_peers, leave_job
from mmfishnet.engine.noise import leave_out_noise
from mmfishnet.engine.testing import (
    enable_tta,
    enable_visualization,
    pictures_folder,
)
from mmfishnet.kinds import scope_of


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('config', help='config file')
    add('checkpoint', help='checkpoint file')
    add('--out', metavar='FILE', help='save the predictions (.pkl) here')
    add('--out-item', choices=['pred', 'metrics'],
        help='what --out saves: the predictions (default) or the metrics '
        '(.json, .yaml or .pkl)')
    add('--show', action='store_true', help='show the predictions in a window')
    add('--show-dir', metavar='DIR',
        help='save pictures of the predictions here; MMDetection configs take '
        "a relative path from the run's folder in the work directory")
    add('--wait-time', type=float, default=2,
        help='seconds that each window stays')
    add('--tta', action='store_true',
        help='test-time augmentation by tta_model and tta_pipeline of the '
        'config, which default to merging the image and its mirror image')
    add_common_arguments(parser)
    args = parser.parse_args()
    if args.out_item and not args.out:
        parser.error('--out-item says what --out saves, so it needs --out')
    args.out_item = args.out_item or 'pred'
    suffixes = ('.pkl', '.pickle')
    if args.out_item == 'metrics':
        suffixes += ('.json', '.yaml', '.yml')
    if args.out and not args.out.endswith(suffixes):
        parser.error(f'--out {args.out} should end with one of '
                     f'{", ".join(suffixes)}')
    return args


def prepare(args):
    """Config and lines for the log."""
    cfg, notes = load_config(args)
    content = open_checkpoint(args.checkpoint)
    notes.append(follow_checkpoint(cfg, args.checkpoint, content))
    cfg.load_from = args.checkpoint
    cfg.resume = False
    drawn = args.show or args.show_dir
    if args.tta and drawn and scope_of(cfg) == 'mmpretrain':
        raise ValueError(
            "--tta cannot be joined with --show or --show-dir: MMPretrain's "
            'hook draws one view of an image only. Run them one by one.')
    if drawn:
        enable_visualization(cfg, args.show, args.show_dir, args.wait_time)
    if args.tta:
        notes.append(enable_tta(cfg))
    return cfg, list(filter(None, notes))


@record
def main():
    with one_speaks():
        args = parse_args()
    leave_out_noise()
    use_safe_loading()
    with short_errors():
        cfg, notes = prepare(args)
    with short_errors(ConfigError), config_faults(cfg):
        runner = build_runner(cfg, notes, whole=True)
    if args.out and args.out_item == 'pred':
        # MMDetection's own compresses the masks.
        name = ('mmdet.DumpDetResults'
                if scope_of(cfg) == 'mmdet' else 'DumpResults')
        runner.test_evaluator.metrics.append(
            METRICS.build(dict(type=name, out_file_path=args.out)))
    with short_errors(OSError, CheckpointError, CheckError, ConfigError), \
            explain_lost_peers(), config_faults(cfg, runner), \
            checked(runner, ('test', ), args.check):
        metrics = runner.test()
    if args.show_dir:
        runner.logger.info(
            f'pictures: in {pictures_folder(runner, args.show_dir)}')
    if args.out and args.out_item == 'metrics' and is_main_process():
        mmengine.dump(metrics, args.out)
    del runner
    leave_job()


if __name__ == '__main__':
    main()
