# Copyright (c) mmfishnet authors. All rights reserved.
"""Time and memory of FishNet-150 and its peers, in every variant, in one run.

Sections: 'inference' and 'step' (a training step, in each of the regimes of
the norms that are asked for) time backbones; 'sizes' compiles a step for all
sizes and times the first one of each; 'dial' compiles a small FishNet's with
several of torch's activation memory budgets; 'growth' shows that cost grows
linearly with pixels and batch; 'detector' records the memory of Mask R-CNN's
step.
Peers that are not installed (pytorchcv) are left out.
"""
import argparse
import json
import platform
import sys
from dataclasses import replace
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import torch
import torchvision

import benchmark_report as report
import benchmark_runs as runs
import benchmark_tables as rows
from mmfishnet.engine.errors import short_errors
from mmfishnet.engine.hooks.compile import set_memory_budget
from mmfishnet.models import FishNet
from step_memory import measure_kept_bytes
from tables import MIB

SECTIONS = ('inference', 'step', 'sizes', 'dial', 'growth', 'detector')


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--sections', nargs='+', choices=SECTIONS, default=SECTIONS[:2])
    add('--regimes', nargs='+', choices=rows.REGIMES, default=['fixed'],
        help='of the norms in a step: ' + '; '.join(
            f'{name}: {regime.title}'
            for name, regime in rows.REGIMES.items()) + ' (default: fixed)')
    add('--device', default='cpu',
        help='cpu, cuda, or meta, which computes nothing and counts the bytes '
        'of a step')
    add('--shapes', nargs='+', metavar='NxHxW',
        help='images of inference and step (default: 4x224x224 and '
        '1x800x1344, 1x512x512 for the step; on a GPU 1x800x1344, '
        '8x800x1344 and 256x224x224 for both, on meta 4x224x224)')
    add('--networks', nargs='+', choices=rows.BACKBONES, metavar='NAME',
        default=[*rows.BACKBONES],
        help=f'default: {", ".join(rows.BACKBONES)}')
    add('--no-compile', action='store_true',
        help='leave out what is compiled, which takes minutes')
    add('--runtimes', action='store_true',
        help='time ONNX Runtime and OpenVINO as well')
    add('--threads', type=int, default=torch.get_num_threads(),
        help='threads of the CPU (default: %(default)s)')
    add('--rounds', type=int, default=5)
    add('--config',
        help='of the detector (default: our Mask R-CNN with FishNet-150)')
    add('--quick', action='store_true',
        help='small images and one round, to see that it works')
    add('--out-dir', type=Path, default='work_dirs/benchmark',
        help='for JSON, tables and pictures (default: %(default)s)')
    return parser.parse_args()


def shapes_of(args, section):
    texts = rows.SHAPES[torch.device(args.device).type][section]
    if not texts:
        return []
    if args.quick:
        return [(2, 3, 64, 64)]
    texts = args.shapes or texts
    shapes = []
    for text in texts:
        try:
            batch, height, width = map(int, text.split('x'))
        except ValueError:
            raise ValueError(f'--shapes: {text!r} should be NxHxW, such as '
                             '1x800x1344.') from None
        shapes.append((batch, 3, height, width))
    return shapes


def cases_of(args, section):
    return [(name, variant) for name in args.networks
            for variant in rows.find_variants(name, section)
            if not (variant.compiled and args.no_compile)
            and (args.device != 'meta' or variant in (rows.PLAIN,
                                                      rows.WITH_CP))
            and (name != rows.AUTHORS or find_spec('pytorchcv'))]


def describe_machine(device, threads):
    name = platform.processor() or platform.machine()
    cpuinfo = Path('/proc/cpuinfo')
    if device.startswith('cuda'):
        name = torch.cuda.get_device_name()
    elif cpuinfo.exists():
        name = next((line.partition(':')[2].strip()
                     for line in cpuinfo.read_text().splitlines()
                     if line.startswith('model name')), name)
    return f'{name}, {threads} threads; torch {torch.__version__}, ' \
        f'torchvision {torchvision.__version__}; {date.today()}'


def other_runtimes(folder, threads):
    """What yields (name, call) of ONNX Runtime and OpenVINO."""

    def others(model, images):
        # Here: optional packages.
        from mmfishnet.apis import export
        onnx_file = export.export_onnx(
            export.export_program(model, torch.randn(2, 3, 64, 96)),
            folder / 'backbone.onnx')
        found = {'ONNX Runtime': export.OnnxRuntime(onnx_file, threads)}
        for name, batches in (('OpenVINO', None),
                              ('OpenVINO, int8', [images])):
            path = export.export_openvino(
                onnx_file, folder / f'{name.replace(", ", "_")}.xml', batches)
            found[name] = export.OpenVINO(path, threads)
        for name, run in found.items():
            yield name, lambda run=run: run(images)[0]

    return others


def measure_backbones(args, setting):
    """The sections 'inference' and 'step'."""
    results = []
    others = args.runtimes and other_runtimes(args.out_dir, args.threads)
    for section, regimes in (('inference', ['fixed']), ('step', args.regimes)):
        for regime in regimes if section in args.sections else ():
            for shape in shapes_of(args, section):
                results += runs.measure_section(
                    section, shape, cases_of(args, section), setting, regime,
                    others or None)
    if not results:
        return {}
    marks = report.check_marks(results)
    for table in report.tabulate_results(results):
        table.show()
    for line in marks:
        print('{} {:.3f}, at most {:.2f}: {}'.format(*line))
    report.write_markdown(results, describe_machine(
        args.device, args.threads), args.out_dir / 'benchmark.md')
    if args.device != 'meta':
        report.draw_times(results, args.out_dir / 'benchmark.png')
    return dict(results=report.to_json(results), marks=marks)


def measure_sizes(args, setting):
    """Seconds of the first compiled step at each size: what takes tens of
    them is compiled anew."""
    sizes = ((64, 96), (96, 64)) if args.quick else rows.SIZES
    found = {}
    # As CompileBackboneHook alone has it.
    plain = replace(rows.OPEN_SIZES, channels_last=False)
    for name, variant in (('fp32', plain),
                          ('with_cp', replace(plain, with_cp=True))):
        call = runs.Call('step', runs.build(rows.OURS, variant, args.device),
                         torch.empty(1, 3, 32, 32), variant)
        times = found[name] = {}
        for height, width in sizes:
            call.take(torch.randn(1, 3, height, width, device=args.device))
            times[f'{height}x{width}'] = call.timed(setting)
            call.clear()
        print(f'first compiled step, {name}, s: ' + ', '.join(
            f'{size} {seconds:.1f}' for size, seconds in times.items()))
    return found


def measure_dial(args, setting):
    """Kept bytes and time of a small FishNet's step, batch norms live:
    compiled with each memory budget, and eager's two points."""
    shape = (2, 3, 64, 64) if args.quick else (2, 3, 256, 256)
    images = torch.randn(shape, device=args.device)

    def call(variant=rows.PLAIN):
        torch.manual_seed(0)
        model = FishNet(rows.SMALL, with_cp=variant.with_cp)
        return runs.Call('step', model.to(args.device), images, variant)

    def compare(calls):
        """Kept bytes, and time over that of 'eager'."""
        results = [runs.Result('step', 'live', rows.OURS, name, shape,
                               call=call) for name, call in calls.items()]
        runs.take_turns(results, setting)
        return {
            r.variant: (measure_kept_bytes(calls[r.variant].model, images),
                        r.seconds / results[0].seconds) for r in results}

    others = {'eager': call(), 'eager, with_cp': call(rows.WITH_CP)}
    found = compare(others)
    for budget in () if args.no_compile else rows.BUDGETS:
        # What another budget has compiled would be taken for this one's.
        torch.compiler.reset()
        if not set_memory_budget(budget):
            raise ValueError(f'torch {torch.__version__} has no activation '
                             'memory budget (2.4 has).')
        found[f'compiled, {budget}'] = compare(dict(
            eager=others['eager'],
            compiled=call(replace(rows.PLAIN, compiled=True))))['compiled']
    set_memory_budget(1.0)
    for name, (kept, ratio) in found.items():
        print(f'{name}: {kept / MIB:.1f} MiB kept, {ratio:.2f} of the time')
    return found


def measure_growth(args, setting):
    """Time and kept bytes of our network against pixels and batch."""
    sides, batches = ((64, 96), (2, )) if args.quick else (rows.SIDES,
                                                           rows.BATCHES)
    shapes = [(1, 3, side, side) for side in sides]
    shapes += [(batch, 3, sides[0], sides[0]) for batch in batches]
    with torch.device('meta'):
        recorded = rows.BACKBONES[rows.OURS](rows.REGIMES['fixed'], False)
    found = []
    for shape in shapes:
        result, = runs.measure_section(
            'inference', shape, [(rows.OURS, rows.CHANNELS_LAST)], setting)
        pixels, seconds = shape[0] * shape[2] * shape[3], result.seconds
        kept = measure_kept_bytes(recorded, torch.empty(shape, device='meta'))
        found.append(
            dict(shape=shape, pixels=pixels, seconds=seconds, kept=kept))
        print(
            f'{"x".join(map(str, shape))}: {1000 * seconds:.0f} ms, '
            f'{1e9 * seconds / pixels:.0f} ns a pixel, {kept / pixels:.0f} '
            'bytes a pixel')
    report.draw_growth(found, args.out_dir / 'growth.png')
    return found


def measure_detector(args, setting):
    """MiB of Mask R-CNN's step with one image of 800x1344."""
    # Here: MMDetection is an optional package, which GPUs' part can spare.
    from mmengine.config import Config

    import plan
    from mmfishnet import config_path
    cfg = Config.fromfile(args.config
                          or config_path('mask_rcnn_fishnet150_fpn.py'))
    size = (64, 96) if args.quick else plan.image_size(cfg)
    heads = plan.measure_heads(cfg, size)
    found = {}
    for with_cp, bound in rows.DETECTOR.items():
        name = 'with_cp' if with_cp else 'fp32'
        held = sum(plan.measure_memory(cfg, size, heads, with_cp)) / MIB
        found[name] = dict(MiB=held, at_most=bound)
        print(f'Mask R-CNN step, {name}: {held:.0f} MiB, at most '
                      f'{bound} at 800x1344')
    return found


def main():
    args = parse_args()
    args.out_dir.mkdir(parents=True, exist_ok=True)
    if args.device.startswith('cuda'):
        # What fp32 means on a GPU that is to be fast.
        torch.set_float32_matmul_precision('high')
        torch.backends.cudnn.allow_tf32 = True
    setting = runs.Setting(
        args.device, args.threads, rounds=1 if args.quick else args.rounds,
        min_run_time=0.01 if args.quick else 0.2,
        log=lambda text: print(text, file=sys.stderr, flush=True))
    machine = describe_machine(args.device, args.threads)
    content = dict(machine=machine)
    with short_errors(ValueError, ImportError, FileNotFoundError):
        content.update(measure_backbones(args, setting))
        for name, measure in (('sizes', measure_sizes),
                              ('dial', measure_dial),
                              ('growth', measure_growth),
                              ('detector', measure_detector)):
            if name in args.sections:
                content[name] = measure(args, setting)
    path = args.out_dir / 'benchmark.json'
    path.write_text(json.dumps(content, indent=1) + '\n')
    print(f'{path} and what lies beside it; measured on {machine}')


if __name__ == '__main__':
    main()
