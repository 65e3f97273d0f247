# Copyright (c) mmfishnet authors. All rights reserved.
"""Where the time of a training goes, from the first step to the last metric.

The config is trained as tools/train.py trains it, without pretrained weights
where they are missing, and each second is counted for one part. --cfg-options
train_cfg.max_epochs=1 makes it short. Of several processes it is the first
one's time.
"""
import argparse
import json
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.dist import is_main_process

import mmfishnet  # noqa: F401 (registers FishNet)
from mmfishnet.checkpoints import drop_pretrained
from mmfishnet.checks import checked
from mmfishnet.engine.arguments import add_common_arguments, load_config
from mmfishnet.engine.bare import bare_model
from mmfishnet.engine.build import build_runner
from mmfishnet.engine.errors import short_errors
from mmfishnet.engine.launch import leave_job
from mmfishnet.engine.noise import leave_out_noise
from tables import Cells

PHASES = ('training', 'validation')
# What MMDetection's heads compute targets and losses by.
LOSSES = ('loss_by_feat', 'loss_and_target')


class Clock:
    """Seconds of each part; what a part calls is not counted for it again."""

    def __init__(self):
        self.seconds = {phase: Counter() for phase in PHASES}
        self.phase = 'training'  # of the next parts
        self.parts = []
        self.since = None

    def tick(self):
        """Count what has passed for the part that is going on."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.parts:
            phase, part = self.parts[-1]
            self.seconds[phase][part] += now - self.since
        self.since = now

    @contextmanager
    def part(self, name):
        self.tick()
        self.parts.append((self.phase, name))
        yield
        self.tick()
        self.parts.pop()

    def around(self, owner, method, name):
        """Count a method of an object."""
        call = getattr(owner, method)

        def timed(*args, **kwargs):
            with self.part(name):
                return call(*args, **kwargs)

        setattr(owner, method, timed)


def watch(runner, clock):
    """Have the parts of a training and its validations counted."""
    model = bare_model(runner.model)
    wrapper = runner.optim_wrapper = runner.build_optim_wrapper(
        runner.optim_wrapper)

    def tick_at_gradients(features):
        # The backbone's backward pass begins when the last of its features
        # has its gradient; not counting what the backbone itself reads again.
        features = tuple(feature.view_as(feature) for feature in features)
        for feature in features:
            if feature.requires_grad:
                feature.register_hook(lambda grad: clock.tick())
        return features

    clock.around(runner, 'train', 'weights, loaders, hooks')
    clock.around(runner, 'call_hook', 'logging, checkpoints, schedules')
    clock.around(runner.train_loop, 'run', 'data')
    if runner.val_loop is not None:
        run = runner.val_loop.run

        def validate():
            clock.phase = 'validation'
            with clock.part('data'):
                metrics = run()
            clock.phase = 'training'
            return metrics

        runner.val_loop.run = validate
        for method in ('process', 'evaluate'):
            clock.around(runner.val_loop.evaluator, method, 'metrics')
    for method in ('train_step', 'val_step'):
        clock.around(runner.model, method, 'heads, forward')
    clock.around(model.data_preprocessor, 'forward', 'images to the model')
    neck = getattr(model, 'neck', None)
    if neck is None:
        extract_feat = model.extract_feat
        model.extract_feat = lambda *args, **kwargs: tick_at_gradients(
            extract_feat(*args, **kwargs))
    else:
        clock.around(neck, 'forward', 'neck, forward')
        neck.register_forward_pre_hook(
            lambda neck, inputs: (tick_at_gradients(inputs[0]), ))
    # Not around the backbone, which could not be compiled then.
    clock.around(model, 'extract_feat', 'backbone, forward')
    for module in model.modules():
        for method in LOSSES:
            if hasattr(module, method):
                clock.around(module, method, 'targets and losses')
    clock.around(wrapper, 'update_params', 'optimizer, clipping')
    backward = wrapper.backward

    def timed_backward(*args, **kwargs):
        with clock.part('heads and neck, backward'):
            backward(*args, **kwargs)
            # What has passed since the last feature's gradient.
            clock.parts[-1] = clock.phase, 'backbone, backward'

    wrapper.backward = timed_backward


def tabulate_seconds(seconds):
    parts = sum(seconds.values(), Counter())
    whole = parts.total()
    rows = []
    for part, _ in parts.most_common():
        spent = [of_phase[part] for of_phase in seconds.values()]
        rows.append([part, *(text for s in spent for text in (
            (f'{s:.1f}', f'{100 * s / whole:.1f}') if s else ('', '')))])
    columns = (text for phase in seconds for text in (f'{phase}, s', '%'))
    return Cells(('', *columns), rows, f'{whole:.0f} s')


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--json', type=Path, metavar='FILE')
    add_common_arguments(parser)
    args = parser.parse_args()
    leave_out_noise()
    with short_errors():
        cfg, notes = load_config(args)
    drop_pretrained(cfg.model, only_missing=True)
    runner = build_runner(cfg, notes)
    clock = Clock()
    with short_errors(), checked(runner, ('train', 'val'), args.check):
        watch(runner, clock)
        runner.train()
    if is_main_process():
        tabulate_seconds(clock.seconds).show()
        if args.json:
            args.json.write_text(json.dumps(clock.seconds) + '\n')
    del runner
    leave_job()


if __name__ == '__main__':
    main()
