# Copyright (c) mmfishnet authors. All rights reserved.
"""Export a trained model to other runtimes, and check what was written.

The backbone of any model, or with the format `detector` a whole Faster or
Mask R-CNN of MMDetection as one ONNX file, from picture to objects, and beside
it what runs it with NumPy alone. Every file is compared with the model on
images of several sizes. With --test, the config's own test runs with each of
them in the place of the module: what 8 bits cost in AP, for example.
"""
import argparse
import logging
import runpy
import shutil
from copy import deepcopy
from itertools import islice
from pathlib import Path

import mmfishnet  # noqa: F401 (registers FishNet)
from mmfishnet.engine.errors import short_errors

FORMATS = ('program', 'onnx', 'openvino', 'int8', 'torchscript', 'detector')
# Batch, height and width: not multiples of 32 alone; the smallest.
CHECKED = ((1, 64, 96), (3, 50, 77), (1, 33, 64), (1, 32, 32))
PICTURES = ((192, 150), (90, 300), (128, 128))


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint', nargs='?', help='trained model (default: none)')
    parser.add_argument(
        '--formats',
        nargs='+',
        default=['onnx'],
        choices=FORMATS,
        help='openvino and int8 write onnx, too (default: onnx)')
    parser.add_argument(
        '--out-dir', type=Path, required=True, metavar='DIR')
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help="folder of the config's data set, for int8 and --test")
    parser.add_argument(
        '--calibration',
        type=int,
        default=32,
        metavar='N',
        help='batches of the training set to which int8 is fitted '
        '(default: %(default)s)')
    parser.add_argument(
        '--test',
        action='store_true',
        help='test with the model and with what was exported')
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        with short_errors():
            export_all(args)
    except ImportError as error:  # an optional package
        raise SystemExit(f'error: {error}') from None


def export_all(args):
    # Takes seconds; --help does not need it.
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope
    from mmengine.runner import load_checkpoint

    from mmfishnet.checkpoints import drop_pretrained, use_safe_loading
    from mmfishnet.engine.data_root import set_data_root
    from mmfishnet.engine.noise import leave_out_noise
    from mmfishnet.kinds import scope_of
    from mmfishnet.models.pretrained_module import check_fit
    leave_out_noise()
    use_safe_loading()
    cfg = Config.fromfile(args.config)
    if args.data_root:
        set_data_root(cfg, args.data_root)
    init_default_scope(scope_of(cfg) or 'mmengine')
    drop_pretrained(cfg.model)
    model = MODELS.build(cfg.model).eval()
    loaded = {}
    if args.checkpoint:
        # What does not fit is said once, by check_fit.
        quiet = logging.getLogger(__name__)
        quiet.setLevel(logging.ERROR)
        loaded = load_checkpoint(
            model, args.checkpoint, map_location='cpu', logger=quiet)
        check_fit(model, loaded, args.checkpoint,
                  heads='detector' in args.formats)
    meta = loaded.get('meta', {}).get('dataset_meta') or {}
    args.out_dir.mkdir(parents=True, exist_ok=True)
    formats = [name for name in args.formats if name != 'detector']
    runs = write_backbone(formats, args, cfg, model) if formats else {}
    detector = write_detector(args.out_dir, cfg, model, meta.get(
        'classes', ())) if 'detector' in args.formats else None
    if args.test:
        cfg.work_dir = str(args.out_dir / 'test')
        cfg.load_from = args.checkpoint
        test_all(cfg, runs, detector)


def test_all(cfg, runs, detector):
    """Test the module and what was exported, and print the results side by
    side."""
    from mmfishnet.engine.runner import ToolRunner
    runner = ToolRunner.from_cfg(cfg)
    runner.load_or_resume()
    results = dict(module=runner.test())
    for name, run in runs.items():
        runner.model.backbone = run
        results[name] = runner.test()
    if detector:
        runner.model = detector
        results['detector'] = runner.test()
    print(f'{"":20}', *(f'{name:>12}' for name in results))
    for metric in results['module']:
        print(f'{metric:20}', *(f'{found[metric]:12.4f}'
                                for found in results.values()))


def write_backbone(formats, args, cfg, model):
    """Write and compare the formats; {name: a module that runs it}."""
    import torch
    from mmengine.runner import Runner

    from mmfishnet.apis import export
    from mmfishnet.models.built import image_channels, largest_error
    module = model.backbone
    channels = image_channels(module)
    example = torch.randn(2, channels, 64, 96)
    onnx_file = args.out_dir / 'backbone.onnx'
    if {*formats} != {'torchscript'}:
        program = export.export_program(module, example)
    if {'onnx', 'openvino', 'int8'} & {*formats}:
        export.export_onnx(program, onnx_file)
    runs = {}
    for name in formats:
        if name == 'program':
            path = args.out_dir / 'backbone.pt2'
            torch.export.save(program, path)
            run = export.Exported(program.module().__call__)
        elif name == 'torchscript':
            path = export.export_torchscript(module, example,
                                             args.out_dir / 'backbone.pt')
            run = torch.jit.load(str(path))
        elif name == 'onnx':
            path, run = onnx_file, export.OnnxRuntime(onnx_file)
        else:
            batches = None
            if name == 'int8':
                loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
                batches = [model.data_preprocessor(batch, False)['inputs']
                           for batch in islice(loader, args.calibration)]
            path = export.export_openvino(
                onnx_file, args.out_dir / f'backbone_{name}.xml', batches)
            run = export.OpenVINO(path)
        runs[name], error = run, 0
        for batch, height, width in CHECKED:
            images = torch.randn(batch, channels, height, width)
            with torch.no_grad():
                error = max(error, largest_error(run(images), module(images)))
        print(f'{path}: largest difference from the module {error:.1e} of '
              'the largest value')
    return runs


def write_detector(out_dir, cfg, model, classes):
    """Write and compare the whole; what a runner can test in its place."""
    import numpy as np
    import torch
    from mmdet.apis import inference_detector
    from mmdet.utils import get_test_pipeline_cfg
    from mmengine.registry import TRANSFORMS
    from mmengine.structures import InstanceData

    from mmfishnet.apis import whole_detector
    from mmfishnet.models.built import image_channels
    # Before the pipeline, which another kind of model has otherwise.
    whole_detector.check_detector(model)
    model.cfg = deepcopy(cfg)  # inference_detector writes to it
    pipeline = get_test_pipeline_cfg(cfg)
    path = whole_detector.export_detector(
        model, out_dir / 'detector.onnx',
        whole_detector.find_resize(pipeline), classes)
    script = shutil.copy(
        Path(__file__).with_name('onnx_detector.py'), out_dir / 'detector.py')
    find = runpy.run_path(str(script))['Detector'](path)
    read = TRANSFORMS.build(pipeline[0])

    def instances(picture):
        found = {key: torch.tensor(x) for key, x in find(picture).items()}
        return InstanceData(bboxes=found.pop('boxes'), **found)

    class Found(torch.nn.Module):

        def test_step(self, data):
            for sample in data['data_samples']:
                picture = read(dict(img_path=sample.img_path))['img']
                sample.pred_instances = instances(picture)
            return data['data_samples']

    rng = np.random.default_rng(0)
    channels = image_channels(model)
    for height, width in PICTURES:
        noise = rng.integers(0, 256, (height, width, channels), np.uint8)
        found = instances(noise)
        truth = inference_detector(model, noise).pred_instances
        print(f'{path}: in {width}x{height} pixels of noise {len(found)} '
              f'objects, by MMDetection {len(truth)}')
        if len(found) == len(truth) > 0:
            print('    largest difference: ' + ', '.join(
                f'{key} {(found[key] - truth[key]).abs().max():.1e}'
                for key in ('bboxes', 'scores')))
    return Found()


if __name__ == '__main__':
    main()
