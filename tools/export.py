# Copyright (c) mmfishnet authors. All rights reserved.
"""Export the backbone of a trained model to other runtimes, and check it.

Every file is compared with the module on images of several sizes. With
--test, the config's own test runs with each exported backbone in the place of
the module: what 8 bits cost in AP, for example.
"""
import argparse
from itertools import islice
from pathlib import Path

import mmfishnet  # noqa: F401 (registers FishNet)
from mmfishnet.engine.errors import short_errors

FORMATS = ('program', 'onnx', 'openvino', 'int8', 'torchscript')
# Not multiples of 32 alone; the smallest as well.
CHECKED = ((1, 64, 96), (3, 50, 77), (1, 33, 64))


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
        help='test with the module and with each exported backbone')
    return parser.parse_args()


def calibration_batches(cfg, model, number):
    """Batches of training images, normalised as the model gets them."""
    from mmengine.runner import Runner
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    for batch in islice(loader, number):
        yield model.data_preprocessor(batch, False)['inputs']


def main():
    args = parse_args()
    try:
        export_all(args)
    except ImportError as error:  # an optional package
        raise SystemExit(f'error: {error}') from None


def export_all(args):
    with short_errors():
        # Takes seconds; --help does not need it.
        import torch
        from mmengine.config import Config
        from mmengine.registry import MODELS, init_default_scope
        from mmengine.runner import Runner, load_checkpoint

        from mmfishnet.apis import export
        from mmfishnet.checkpoints import drop_pretrained, use_safe_loading
        from mmfishnet.engine.data_root import set_data_root
        from mmfishnet.models.built import image_channels, largest_error
        from mmfishnet.models.pretrained_module import check_fit

        use_safe_loading()
        cfg = Config.fromfile(args.config)
        if args.data_root:
            set_data_root(cfg, args.data_root)
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        drop_pretrained(cfg.model)
        model = MODELS.build(cfg.model).eval()
        if args.checkpoint:
            check_fit(
                model,
                load_checkpoint(model, args.checkpoint, map_location='cpu'),
                args.checkpoint)
        module = model.backbone
        channels = image_channels(module)
        example = torch.randn(2, channels, 64, 96)
        args.out_dir.mkdir(parents=True, exist_ok=True)
        sizes = (*CHECKED, (1, export.MIN_SIZE, export.MIN_SIZE))
        runs = dict(module=module)
        onnx_file = args.out_dir / 'backbone.onnx'
        if {*args.formats} != {'torchscript'}:
            program = export.export_program(module, example)
        if {'onnx', 'openvino', 'int8'} & {*args.formats}:
            export.export_onnx(program, onnx_file)
        for name in args.formats:
            if name == 'program':
                path = args.out_dir / 'backbone.pt2'
                torch.export.save(program, path)
                run = export.Program(program)
            elif name == 'torchscript':
                path = export.export_torchscript(
                    module, example, args.out_dir / 'backbone.pt')
                run = torch.jit.load(str(path))
            elif name == 'onnx':
                path, run = onnx_file, export.OnnxRuntime(onnx_file)
            else:
                batches = None
                if name == 'int8':
                    batches = calibration_batches(cfg, model,
                                                  args.calibration)
                path = export.export_openvino(
                    onnx_file, args.out_dir / f'backbone_{name}.xml', batches)
                run = export.OpenVINO(path)
            runs[name] = run
            errors = []
            for batch, height, width in sizes:
                images = torch.randn(batch, channels, height, width)
                with torch.no_grad():
                    errors.append(largest_error(run(images), module(images)))
            print(f'{path}: largest difference from the module '
                  f'{max(errors):.1e} of the largest value')
        if args.test:
            cfg.work_dir = str(args.out_dir / 'test')
            cfg.load_from = args.checkpoint
            runner = Runner.from_cfg(cfg)
            runner.load_or_resume()
            for name, run in runs.items():
                runner.model.backbone = run
                print(f'{name}: {runner.test()}')


if __name__ == '__main__':
    main()
