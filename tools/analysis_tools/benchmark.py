# Copyright (c) mmfishnet authors. All rights reserved.
"""Time and memory of FishNet-150 and its peers, in every variant, in one run.

Sections: 'inference' and 'step' (a training step with norms and stem fixed)
time backbones; 'sizes' compiles a step for all sizes and times the first one
of each; 'growth' shows that cost grows linearly with pixels and batch;
'detector' records the memory of Mask R-CNN's step. Peers that are not
installed (pytorchcv) are left out.
"""
import argparse
import json
import platform
import sys
from dataclasses import replace
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torchvision
from rich.console import Console

import benchmark_report as report
import benchmark_runs as bench
from step_memory import measure_kept_bytes

SECTIONS = ('inference', 'step', 'sizes', 'growth', 'detector')
SHAPES = dict(
    cpu=dict(inference=['4x224x224', '1x800x1344'], step=['1x512x512']),
    cuda=dict(
        inference=['1x800x1344', '8x800x1344', '256x224x224'],
        step=['1x800x1344', '8x800x1344', '256x224x224']))
# Of pictures of COCO, resized to 1333x800 and padded to multiples of 32.
SIZES = ((800, 1344), (1344, 800), (800, 1088), (800, 1216), (1216, 800),
         (800, 1056), (800, 1248), (800, 800), (1088, 800), (672, 1344))
SIDES = (256, 384, 512, 768, 1024, 1344)
BATCHES = (2, 4, 8)


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--sections',
        nargs='+',
        choices=SECTIONS,
        default=['inference', 'step'])
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument(
        '--shapes',
        nargs='+',
        metavar='NxHxW',
        help='images of inference and step (default: 4x224x224 and '
        '1x800x1344, 1x512x512 for the step; on a GPU 1x800x1344, '
        '8x800x1344 and 256x224x224 for both)')
    parser.add_argument(
        '--networks',
        nargs='+',
        choices=bench.BACKBONES,
        metavar='NAME',
        help=f'default: {", ".join(bench.BACKBONES)}')
    parser.add_argument(
        '--no-compile',
        action='store_true',
        help='leave out what is compiled, which takes minutes')
    parser.add_argument(
        '--runtimes',
        action='store_true',
        help='time ONNX Runtime and OpenVINO as well')
    parser.add_argument(
        '--threads',
        type=int,
        default=torch.get_num_threads(),
        help='threads of the CPU (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument(
        '--config',
        help='of the detector (default: our Mask R-CNN with FishNet-150)')
    parser.add_argument(
        '--quick',
        action='store_true',
        help='small images and one round, to see that it works')
    parser.add_argument(
        '--out-dir',
        type=Path,
        default='work_dirs/benchmark',
        help='for JSON, tables and pictures (default: %(default)s)')
    return parser.parse_args()


def shapes_of(args, section):
    if args.quick:
        return [(1, 3, 64, 64)]
    texts = args.shapes or SHAPES[torch.device(args.device).type][section]
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
    networks = args.networks or list(bench.BACKBONES)
    if find_spec('pytorchcv') is None:
        networks = [name for name in networks if name != bench.AUTHORS]
    ours = dict(inference=bench.INFERENCE, step=bench.STEP)[section]
    cases = []
    for name in networks:
        variants = ours if name == bench.OURS else (bench.PLAIN,
                                                    bench.CHANNELS_LAST)
        cases += [(name, variant) for variant in variants
                  if not (variant.compiled and args.no_compile)]
    return cases


def describe_machine(device, threads):
    if device.startswith('cuda'):
        name = torch.cuda.get_device_name()
    else:
        name = f'{platform.processor() or platform.machine()}, ' \
            f'{threads} threads'
        cpuinfo = Path('/proc/cpuinfo')
        if cpuinfo.exists():
            for line in cpuinfo.read_text().splitlines():
                if line.startswith('model name'):
                    name = f'{line.split(":")[1].strip()}, {threads} threads'
                    break
    return f'{name}; torch {torch.__version__}, torchvision ' \
        f'{torchvision.__version__}; {date.today()}'


def other_runtimes(folder, threads):
    """What yields (name, call) of ONNX Runtime and OpenVINO."""

    def others(model, images):
        # Here: optional packages.
        from mmfishnet.apis import export
        onnx_file = export.export_onnx(
            export.export_program(model, torch.randn(2, 3, 64, 96)),
            folder / 'backbone.onnx')
        runs = {'ONNX Runtime': export.OnnxRuntime(onnx_file, threads)}
        for name, batches in (('OpenVINO', None),
                              ('OpenVINO, int8', [images])):
            path = export.export_openvino(
                onnx_file, folder / f'{name.replace(", ", "_")}.xml', batches)
            runs[name] = export.OpenVINO(path, threads)
        for name, run in runs.items():
            yield name, lambda run=run: run(images)[0]

    return others


def measure_sizes(args):
    """Seconds of the first compiled step at each size: what takes tens of
    them is compiled anew."""
    sizes = ((64, 96), (96, 64)) if args.quick else SIZES
    rows = {}
    # As CompileBackboneHook alone has it.
    plain = replace(bench.OPEN_SIZES, channels_last=False)
    for variant in (plain, replace(plain, with_cp=True)):
        run = bench.Run('step', bench.build(bench.OURS, variant, args.device),
                        torch.empty(1, 3, 32, 32), variant)
        row = rows['with_cp' if variant.with_cp else 'fp32'] = {}
        for height, width in sizes:
            run.take(torch.randn(1, 3, height, width, device=args.device))
            row[f'{height}x{width}'] = bench.time_call(run, args.device)
            run.clear()
    return rows


def measure_growth(args):
    """Time and kept bytes of our network against pixels and batch."""
    sides, batches = ((64, 96), (2, )) if args.quick else (SIDES, BATCHES)
    shapes = [(1, 3, side, side) for side in sides]
    shapes += [(batch, 3, sides[0], sides[0]) for batch in batches]
    with torch.device('meta'):
        recorded = bench.BACKBONES[bench.OURS]()
    rows = []
    for shape in shapes:
        result, = bench.measure_section(
            'inference',
            shape, [(bench.OURS, bench.CHANNELS_LAST)],
            args.device,
            args.threads,
            rounds=1 if args.quick else args.rounds)
        rows.append(
            dict(
                shape=shape,
                pixels=shape[0] * shape[2] * shape[3],
                seconds=result.seconds,
                kept=measure_kept_bytes(
                    recorded, torch.empty(shape, device='meta'))))
    pixels, seconds = (np.array([row[key] for row in rows])
                       for key in ('pixels', 'seconds'))
    slope = (pixels * seconds).sum() / (pixels**2).sum()
    return dict(
        rows=rows,
        ns_per_pixel=1e9 * slope,
        # Of a line through the origin.
        largest_deviation=float(np.abs(seconds / (slope * pixels) - 1).max()))


def measure_detector(args):
    """MiB of Mask R-CNN's step with one image of 800x1344."""
    # Here: MMDetection is an optional package, which GPUs' part can spare.
    from mmengine.config import Config

    import plan
    from mmfishnet import config_path
    cfg = Config.fromfile(args.config
                          or config_path('mask_rcnn_fishnet150_fpn.py'))
    size = (64, 96) if args.quick else plan.image_size(cfg)
    heads = plan.measure_heads(cfg, size)
    bounds = {False: 2450, True: 1700}
    return {
        'with_cp' if with_cp else 'fp32': dict(
            MiB=plan.measure_memory(cfg, size, heads, with_cp).total / 2**20,
            at_most=bound)
        for with_cp, bound in bounds.items()
    }


def main():
    args = parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    machine = describe_machine(args.device, args.threads)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    if args.device.startswith('cuda'):
        # What fp32 means on a GPU that is to be fast.
        torch.set_float32_matmul_precision('high')
        torch.backends.cudnn.allow_tf32 = True
    content = dict(machine=machine)
    results = []
    try:
        for section in ('inference', 'step'):
            if section not in args.sections:
                continue
            for shape in shapes_of(args, section):
                results += bench.measure_section(
                    section,
                    shape,
                    cases_of(args, section),
                    args.device,
                    args.threads,
                    rounds=1 if args.quick else args.rounds,
                    min_run_time=0.01 if args.quick else 0.2,
                    others=other_runtimes(args.out_dir, args.threads)
                    if args.runtimes else None,
                    log=lambda text: print(text, file=sys.stderr, flush=True))
        if results:
            report.write(results, machine, args.out_dir)
            content.update(
                results=report.to_json(results),
                marks=report.check_marks(results))
            for table in report.to_rich(results):
                console.print(table)
            for what, ratio, bound in report.check_marks(results):
                word = 'reached' if ratio <= bound else 'missed'
                console.print(f'{what} {ratio:.3f}, at most {bound}: {word}')
        if 'sizes' in args.sections:
            sizes = content['sizes'] = measure_sizes(args)
            for name, row in sizes.items():
                times = ', '.join(f'{size} {seconds:.1f}'
                                  for size, seconds in row.items())
                console.print(f'first compiled step, {name}, s: {times}')
        if 'growth' in args.sections:
            growth = content['growth'] = measure_growth(args)
            report.draw_growth(growth['rows'], args.out_dir / 'growth.png')
            for row in growth['rows']:
                console.print(
                    f'{"x".join(map(str, row["shape"]))}: '
                    f'{1000 * row["seconds"]:.0f} ms, '
                    f'{1e9 * row["seconds"] / row["pixels"]:.0f} ns a pixel, '
                    f'{row["kept"] / row["pixels"]:.0f} bytes a pixel')
        if 'detector' in args.sections:
            detector = content['detector'] = measure_detector(args)
            for name, row in detector.items():
                console.print(f'Mask R-CNN step, {name}: {row["MiB"]:.0f} MiB,'
                              f' at most {row["at_most"]} at 800x1344')
    except (ValueError, ImportError, FileNotFoundError) as error:
        raise SystemExit(f'error: {error}') from None
    path = args.out_dir / 'benchmark.json'
    path.write_text(json.dumps(content, indent=1) + '\n')
    console.print(f'{path} and what lies beside it; measured on {machine}')


if __name__ == '__main__':
    main()
