# Copyright (c) mmfishnet authors. All rights reserved.
"""Another project, which has mmfishnet from a wheel and trains with it."""
import json
import pickle
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mmfishnet.datasets import draw_coco

mmdet = pytest.importorskip('mmdet')

CLASSES = ('ring', 'square', 'star')

# Three lines, for data that lie where the inherited config reads them.
TEXT = """\
_base_ = {base}
model = dict(backbone=dict(init_cfg=None), roi_head=dict(bbox_head=dict(num_classes=3), mask_head=dict(num_classes=3)))
train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(metainfo=dict(classes=('ring', 'square', 'star'))))
"""  # noqa: E501
# Data that lie elsewhere, read by a class of the project's own.
PURE = """\
from mmengine.config import read_base

from threeshapes import ThreeShapes

with read_base():
    from mmfishnet.configs.shapes.mask_rcnn_fishnet_shapes import *

model.backbone.init_cfg = None
model.roi_head.bbox_head.num_classes = 3
model.roi_head.mask_head.num_classes = 3
mine = dict(type=ThreeShapes, data_root='data/three/', metainfo=None)
train_dataloader.dataset.update(mine)
val_dataloader.dataset.update(mine)
test_dataloader.dataset.update(mine)
val_evaluator.ann_file = 'data/three/annotations/instances_val2017.json'
test_evaluator.ann_file = val_evaluator.ann_file
"""
PROJECT = {
    'threeshapes/__init__.py':
    f"""\
from mmdet.datasets import CocoDataset


class ThreeShapes(CocoDataset):
    METAINFO = dict(classes={CLASSES})
""",
    'configs/scheme.py':
    TEXT.format(base="'mmfishnet::shapes/mask_rcnn_fishnet_shapes.py'"),
    'configs/function.py':
    TEXT.format(base="__import__('mmfishnet').config_path("
                "'shapes/mask_rcnn_fishnet_shapes.py')"),
    'configs/pure.py':
    PURE,
}

OPTIONS = ('--cfg-options', 'train_cfg.max_epochs=1',
           'train_cfg.val_interval=1', 'train_dataloader.batch_size=4')
# Which of the project's configs each tool trains and tests: all of them say
# the same. Only our tools know the first form.
RUNS = {
    'mmdet': ('pure', 'function'),
    'mmfishnet': ('scheme', 'pure'),
}


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp('threeshapes')
    for name, text in PROJECT.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    data = folder / 'data/three'
    data.parent.mkdir()
    draw_coco(data, train=8, val=4, size=64, classes=CLASSES)
    (folder / 'data/shapes').symlink_to('three')
    return folder


@pytest.fixture(scope='module')
def runs(project, project_python, project_environ):
    """Train for an epoch, and test, with both tools."""
    environ = {**project_environ, 'PYTHONPATH': str(project)}

    def python(*args):
        done = subprocess.run(
            [project_python, *args], cwd=project, env=environ, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout[-5000:]
        return done.stdout

    def run(package):
        train, test = (f'configs/{name}.py' for name in RUNS[package])
        # The tools that the package ships, wherever it is installed.
        origin = python('-c', 'from importlib.util import find_spec; '
                        f'print(find_spec({package!r}).origin)').strip()
        tools = Path(origin).with_name('.mim') / 'tools'
        work_dir = project / 'work_dirs' / package
        python(tools / 'train.py', train, '--work-dir', work_dir, *OPTIONS)
        python(tools / 'test.py', test, work_dir / 'epoch_1.pth',
               '--work-dir', work_dir / 'test', '--out',
               work_dir / 'predictions.pkl')
        return tools, work_dir

    with ThreadPoolExecutor(len(RUNS)) as pool:
        return dict(zip(RUNS, pool.map(run, RUNS)))


def metrics_in(folder, pattern):
    """The last evaluation in the last of MMEngine's logs."""
    lines = max(folder.glob(pattern)).read_text().splitlines()
    last = [json.loads(line) for line in lines if 'coco/' in line][-1]
    return {key: value for key, value in last.items()
            if key.startswith('coco/')}


def test_both_train_the_same_model_with_their_own_tools(runs, project_python):
    """Not to the same bits: ours draws by the place in the run."""
    assert runs['mmfishnet'][0].is_relative_to(project_python.parents[1])
    assert runs['mmdet'][0].samefile(
        Path(mmdet.__file__).with_name('.mim') / 'tools')
    shapes = []
    for _, work_dir in runs.values():
        held = torch.load(work_dir / 'epoch_1.pth', map_location='cpu',
                          weights_only=False)
        meta, state = held['meta'], held['state_dict']
        assert (meta['epoch'], meta['iter']) == (1, 2)
        assert tuple(meta['dataset_meta']['classes']) == CLASSES
        assert state['roi_head.bbox_head.fc_cls.weight'].shape[0] == 3 + 1
        assert state['roi_head.mask_head.conv_logits.weight'].shape[0] == 3
        shapes.append({key: value.shape for key, value in state.items()})
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize('package', RUNS)
def test_testing(runs, package):
    """As the validation at the end of training found it."""
    _, work_dir = runs[package]
    tested = metrics_in(work_dir, 'test/*/*.json')
    assert tested['coco/segm_mAP'] >= 0 and tested['coco/bbox_mAP'] >= 0
    assert tested == metrics_in(work_dir, '*/vis_data/scalars.json')
    predictions = pickle.loads((work_dir / 'predictions.pkl').read_bytes())
    assert len(predictions) == 4
    labels = torch.cat(
        [image['pred_instances']['labels'] for image in predictions])
    assert len(labels) and labels.max() < len(CLASSES)


def test_inferencer(runs, project, monkeypatch):
    """MMDetection's, from the checkpoint alone, predicts what test.py did."""
    from mmdet.apis import DetInferencer
    monkeypatch.chdir(project)
    _, work_dir = runs['mmfishnet']
    expected = pickle.loads((work_dir / 'predictions.pkl').read_bytes())
    inferencer = DetInferencer(weights=str(work_dir / 'epoch_1.pth'),
                               device='cpu', show_progress=False)
    assert inferencer.model.dataset_meta['classes'] == CLASSES
    found = inferencer([image['img_path'] for image in expected],
                       out_dir='pictures')['predictions']
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        other = other['pred_instances']
        assert [mask['counts'].encode() for mask in one['masks']
                ] == [mask['counts'] for mask in other['masks']]
        for key in ('labels', 'scores', 'bboxes'):
            torch.testing.assert_close(torch.tensor(one[key]), other[key])
    assert len(list(Path('pictures/vis').iterdir())) == len(expected)
