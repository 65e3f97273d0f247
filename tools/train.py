# Copyright (c) mmfishnet authors. All rights reserved.
"""Train a model of an MMDetection or MMPretrain config."""
import argparse

from torch.distributed.elastic.multiprocessing.errors import record

import mmfishnet  # noqa: F401 (registers FishNet)
from mmfishnet.checkpoints import (
    CheckpointError,
    drop_pretrained,
    require_pretrained,
    use_safe_loading,
)
from mmfishnet.checks import CheckError, checked
from mmfishnet.engine.arguments import add_common_arguments, load_config
from mmfishnet.engine.build import build_runner
from mmfishnet.engine.errors import one_speaks, short_errors
from mmfishnet.engine.exact.resume import (
    open_checkpoint,
    set_resume,
    tells_how_to_go_on,
)
from mmfishnet.engine.faults import ConfigError, config_faults
from mmfishnet.engine.from_scratch import follow_checkpoint
from mmfishnet.engine.launch import explain_lost_peers, leave_job
from mmfishnet.engine.noise import leave_out_noise
from mmfishnet.engine.training import (
    TRACKERS,
    enable_auto_scale_lr,
    enable_early_stop,
    enable_tracking,
    enable_val_loss,
)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('config', help='config file')
    add('--amp', action='store_true',
        help='train in automatic mixed precision (on GPUs)')
    add('--auto-scale-lr', action='store_true',
        help='scale the learning rate by the batch size over '
        'auto_scale_lr.base_batch_size of the config')
    add('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
        help='go on from this checkpoint, or from the latest one in the work '
        'directory')
    add('--no-validate', action='store_true',
        help='do not evaluate during training')
    add('--val-loss', action='store_true',
        help='compute the losses of the validation data, too, after each '
        'validation: val_loss')
    add('--early-stop', type=int, metavar='N',
        help='end after N validations without a better metric, and keep the '
        'best checkpoint')
    add('--monitor', metavar='METRIC',
        help='what --early-stop goes by, as it is logged, or val_loss; the '
        "default is save_best of the config, or its evaluator's AP, accuracy "
        'or mIoU')
    add('--track', nargs='+', choices=TRACKERS, default=[],
        help='send what is logged to these, too; wandb writes to the work '
        'directory and sends nothing unless WANDB_MODE=online is set; name '
        'them after CONFIG')
    add_common_arguments(parser)
    args = parser.parse_args()
    if args.early_stop is not None and args.early_stop < 1:
        parser.error(f'--early-stop {args.early_stop} should be 1 or more')
    if args.early_stop and args.no_validate:
        parser.error('--early-stop goes by the validation, which '
                     '--no-validate leaves out')
    return args


def prepare(args):
    """Config, lines for the log, and checkpoint to go on from."""
    cfg, notes = load_config(args)
    if args.auto_scale_lr:
        enable_auto_scale_lr(cfg)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.val_loss:
        enable_val_loss(cfg)
    if args.early_stop:
        notes.append(enable_early_stop(cfg, args.early_stop, args.monitor))
    if args.track:
        enable_tracking(cfg, args.track)
    checkpoint, resume_notes = set_resume(cfg, args.resume)
    notes += resume_notes
    source = checkpoint or cfg.get('load_from')
    if source:
        content = open_checkpoint(source)
        if checkpoint:
            notes.append(follow_checkpoint(cfg, checkpoint, content))
        # All that the pretrained file would give is in there.
        notes += [
            f'{path} is not there; the weights come from {source}'
            for path in drop_pretrained(cfg.get('model'), only_missing=True)
        ]
    require_pretrained(cfg.get('model'))
    return cfg, list(filter(None, notes)), checkpoint


@record
def main():
    with one_speaks():
        args = parse_args()
    leave_out_noise()
    use_safe_loading()
    with short_errors():
        cfg, notes, checkpoint = prepare(args)
    with short_errors(ConfigError), config_faults(cfg):
        runner = build_runner(cfg, notes, checkpoint)
    with short_errors(OSError, CheckpointError, CheckError, ConfigError), \
            explain_lost_peers(), config_faults(cfg, runner), \
            checked(runner, ('train', 'val'), args.check), \
            tells_how_to_go_on(runner.work_dir):
        runner.train()
    del runner
    leave_job()


if __name__ == '__main__':
    main()
