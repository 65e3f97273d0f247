# Copyright (c) mmfishnet authors. All rights reserved.
"""Where the time of a detector's training goes, part by part.

Some steps of a config's own training are run, and its validation where
--evaluate is given. Modules are timed from outside, so this is for detectors
that compute forward and backward in the calling process, on a CPU or a GPU.
"""
import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import mmfishnet  # noqa: F401 (registers FishNet)
from mmfishnet.engine.errors import short_errors


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--data-root', metavar='DIR')
    parser.add_argument(
        '--steps', type=int, default=8, help='default: %(default)s')
    parser.add_argument(
        '--evaluate', action='store_true', help='time the validation as well')
    parser.add_argument('--work-dir', default='work_dirs/training_time')
    parser.add_argument('--json', type=Path, metavar='FILE')
    parser.add_argument(
        '--cfg-options', nargs='+', metavar='KEY=VALUE', default=[])
    return parser.parse_args()


class Clock:
    """Seconds of each part in each step."""

    def __init__(self, sync):
        self.sync = sync
        self.steps = []
        self.now = None

    def tick(self):
        self.sync()
        return time.perf_counter()

    def start(self):
        self.steps.append(defaultdict(float))

    def add(self, part, since):
        if self.steps:
            self.steps[-1][part] += self.tick() - since

    def around(self, part, function):
        """The function, timed."""

        def timed(*args, **kwargs):
            since = self.tick()
            returned = function(*args, **kwargs)
            self.add(part, since)
            return returned

        return timed


def watch(runner, clock):
    """Have the parts of a training step timed."""
    import torch
    from mmengine.hooks import Hook

    model, wrapper = runner.model, runner.optim_wrapper
    reached = {}

    def arrive(grad):
        # The last of the backbone's outputs whose gradient is there.
        reached['backbone'] = clock.tick()

    def after_backbone(module, args, outputs):
        for output in outputs:
            if isinstance(output, torch.Tensor) and output.requires_grad:
                output.register_hook(arrive)

    model.backbone.register_forward_hook(after_backbone)
    for name in ('data_preprocessor', 'backbone', 'neck'):
        module = getattr(model, name, None)
        if module is not None:
            module.forward = clock.around(f'{name}, forward', module.forward)
    for name in ('rpn_head', 'roi_head', 'bbox_head'):
        head = getattr(model, name, None)
        for method in ('loss', 'loss_and_predict'):
            if hasattr(head, method):
                setattr(head, method,
                        clock.around(f'{name}, forward and losses',
                                     getattr(head, method)))

    backward = wrapper.backward

    def timed_backward(loss, **kwargs):
        since = clock.tick()
        backward(loss, **kwargs)
        end = clock.tick()
        middle = reached.pop('backbone', end)
        clock.steps[-1]['heads and neck, backward'] += middle - since
        clock.steps[-1]['backbone, backward'] += end - middle

    wrapper.backward = timed_backward
    wrapper.step = clock.around('optimizer', wrapper.step)

    class Watch(Hook):
        """The step as a whole, and the loader's part before it."""

        priority = 'HIGHEST'
        ended = None

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            clock.start()
            self.began = clock.tick()
            if self.ended is not None:
                clock.steps[-1]['data'] = self.began - self.ended

        def after_train_iter(self, *args, **kwargs):
            clock.add('step', self.began)
            self.ended = clock.tick()

    class Last(Hook):
        """What the other hooks take after a step: logs, checkpoints."""

        priority = 'LOWEST'

        def after_train_iter(self, *args, **kwargs):
            clock.add('hooks', first.ended)
            first.ended = clock.tick()

    first = Watch()
    runner.register_hook(first)
    runner.register_hook(Last())


def main():
    args = parse_args()
    with short_errors():
        # Takes seconds; --help does not need it.
        import torch
        from mmengine.config import Config, DictAction
        from mmengine.runner import Runner

        from mmfishnet.checkpoints import drop_pretrained
        from mmfishnet.engine.data_root import set_data_root

        parser = argparse.ArgumentParser()
        parser.add_argument('--options', nargs='*', action=DictAction)
        options = parser.parse_args(['--options', *args.cfg_options]).options
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(options or {})
        if args.data_root:
            set_data_root(cfg, args.data_root)
        drop_pretrained(cfg.model)  # time does not depend on the weights
        cfg.work_dir = args.work_dir
        cfg.default_hooks.checkpoint.interval = -1
        cfg.train_cfg = dict(
            type='IterBasedTrainLoop',
            max_iters=args.steps,
            val_interval=10**9)
        runner = Runner.from_cfg(cfg)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        sync = (
            torch.cuda.synchronize
            if torch.cuda.is_available() else lambda: None)
        clock = Clock(sync)
        watch(runner, clock)
        runner.train()
        evaluation = None
        if args.evaluate:
            since = clock.tick()
            runner.val()
            evaluation = clock.tick() - since

    # The first steps warm caches and workers up.
    steps = clock.steps[min(2, len(clock.steps) - 1):]
    parts = {part: median(step.get(part, 0.0) for step in steps)
             for part in dict.fromkeys(p for step in steps for p in step)}
    whole = parts['step'] + parts.get('data', 0) + parts.get('hooks', 0)
    for part, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        print(f'{part:32} {1000 * seconds:9.1f} ms  '
              f'{100 * seconds / whole:5.1f} %')
    if evaluation is not None:
        print(f'{"validation, whole":32} {evaluation:9.1f} s')
    if args.json:
        args.json.write_text(
            json.dumps(dict(parts=parts, evaluation=evaluation)) + '\n')


if __name__ == '__main__':
    main()
