# Copyright (c) mmfishnet authors. All rights reserved.
"""tools/{train,test}.py and the scripts around them, run as users run them.

The processes are few because each costs seconds: what one run leaves is what
the next one goes on from and what several tests look at.
"""
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.device import get_device

from fish import TINY
from mmfishnet.datasets import CLASSES, draw_classification, draw_coco

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')
pytestmark = pytest.mark.skipif(
    get_device() != 'cpu', reason='two processes need two GPUs')

TOOLS = Path(__file__).parents[2] / 'tools'

# 'FishNet' without a scope: the tools import mmfishnet. No weights are
# there, and batch norm is fixed, as in the paper's recipe. CLASSES come from
# the data.
MASK_RCNN = f"""
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py'
]
model = dict(
    backbone=dict(
        _delete_=True,
        type='FishNet',
        depth={TINY},
        frozen_stages=0,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='no/fishnet150.pth')),
    neck=dict(in_channels=[48, 112, 208, 272], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        mask_roi_extractor=dict(out_channels=16),
        bbox_head=dict(
            in_channels=16, fc_out_channels=16, num_classes=len(CLASSES)),
        mask_head=dict(
            num_convs=1, in_channels=16,
            conv_out_channels=16,
            num_classes=len(CLASSES))),
    # Else the untrained model draws a hundred objects on every picture.
    test_cfg=dict(rcnn=dict(max_per_img=5)))
resize = dict(type='Resize', scale=(64, 64))
load = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
pipeline = [
    dict(type='LoadImageFromFile'), resize, load,
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor'))
]
dataset = dict(metainfo=dict(classes=CLASSES), pipeline=pipeline)
train_dataloader = dict(batch_size=1, num_workers=0, dataset=dataset)
val_dataloader = dict(num_workers=0, dataset=dataset)
test_dataloader = val_dataloader
default_hooks = dict(logger=dict(interval=1))
"""

CLASSIFIER = f"""
_base_ = [
    'mmpretrain::_base_/schedules/imagenet_bs256.py',
    'mmpretrain::_base_/default_runtime.py'
]
model = dict(
    type='ImageClassifier',
    backbone=dict(type='FishNet', depth={TINY}, out_indices=(3, )),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes={len(CLASSES)}, in_channels=272))
data_preprocessor = dict(mean=[127.5] * 3, std=[50.0] * 3)
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=6,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root='data/shapes',
        data_prefix='train',
        pipeline=pipeline))
val_dataloader = dict(
    batch_size=6,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root='data/shapes',
        data_prefix='val',
        pipeline=pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
"""

# What Slurm's commands do for one host, without its queue.
SRUN = """#!/usr/bin/env bash
while [[ $1 == -* ]]; do
    case $1 in
        --ntasks=*) ntasks=${1#*=} ;;
        -p) shift ;;
    esac
    shift
done
for ((i = 0; i < ntasks; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NTASKS=$ntasks \\
        SLURM_NODELIST=node1 "$@" &
    tasks+=($!)
done
for task in "${tasks[@]}"; do wait "$task" || exit; done
"""
SCONTROL = """#!/usr/bin/env bash
[[ "$*" == 'show hostname node1' ]] && echo 127.0.0.1
"""


def start(*command, **env):
    """Start a command in a process group of its own."""
    environment = dict(
        os.environ, PYTHON=sys.executable, OMP_NUM_THREADS='1', **env)
    environment['PYTHONPATH'] = str(TOOLS.parent)
    return subprocess.Popen(
        list(map(str, command)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True)


def finish(process, timeout=600):
    """Wait for a command; gives its exit code and what it printed."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(process.communicate()[0])
    return process.returncode, output


def run(*command, **env):
    """Run a command that should succeed; gives what it printed."""
    code, output = finish(start(*command, **env))
    assert code == 0, output
    return output


def free_port():
    import socket
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


def children(pid):
    table = subprocess.check_output(['ps', '-eo', 'ppid=,pid='], text=True)
    pairs = (map(int, line.split()) for line in table.splitlines())
    return [child for parent, child in pairs if parent == pid]


def annotations(folder):
    file = folder / 'my data/annotations/instances_val2017.json'
    return json.loads(file.read_text())


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Data and configs; the tools are called from here, with spaces."""
    folder = tmp_path_factory.mktemp('white space')
    draw_coco(folder / 'my data', 4, 4, size=64, seed=0)
    classes = tuple(c['name'] for c in annotations(folder)['categories'])
    (folder / 'my config.py').write_text(f'CLASSES = {classes}{MASK_RCNN}')
    cwd = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(cwd)


@pytest.fixture(scope='module')
def killed(folder):
    """A training of which one process was killed."""
    process = start(
        TOOLS / 'dist_train.sh', 'my config.py', 2, '--data-root', 'my data',
        '--work-dir', 'my run', '--from-scratch', '--no-validate', '--amp',
        '--auto-scale-lr', '--cfg-options', 'train_cfg.max_epochs=1000',
        'default_hooks.checkpoint.max_keep_ckpts=2')
    limit = time.monotonic() + 600
    while not Path('my run/last_checkpoint').exists():
        if process.poll() is not None or time.monotonic() > limit:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(finish(process)[1])
        time.sleep(0.1)
    workers = children(process.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    since = time.monotonic()
    code, output = finish(process)
    return code, output, time.monotonic() - since


@pytest.fixture(scope='module')
def left(killed):
    """Its last checkpoint."""
    return torch.load(
        Path('my run/last_checkpoint').read_text(), weights_only=False)


@pytest.fixture(scope='module')
def resumed(left, folder):
    """The training that went on from there, as a job of Slurm."""
    last = Path('my run/last_checkpoint').read_text()
    epoch = int(re.search(r'epoch_(\d+)', last).group(1))
    # Another process was killed while it saved the next checkpoint.
    newer = Path(f'my run/epoch_{epoch + 1}.pth')
    newer.write_bytes(Path(last).read_bytes()[:-500])
    Path('my run/last_checkpoint').write_text(str(newer.absolute()))

    for name, script in (('srun', SRUN), ('scontrol', SCONTROL)):
        Path('bin').mkdir(exist_ok=True)
        Path('bin', name).write_text(script)
        Path('bin', name).chmod(0o755)
    output = run(
        TOOLS / 'slurm_train.sh', 'partition', 'my job', 'my config.py',
        'my run', '--from-scratch', '--resume', '--cfg-options',
        f'train_cfg.max_epochs={epoch + 1}',
        PATH=f'{folder}/bin:{os.environ["PATH"]}',
        GPUS='2',
        MASTER_PORT=str(free_port()),
        MMDET_DATASETS=str(folder / 'my data'))
    return epoch, left['state_dict'], output


def test_killed_process_ends_the_job(killed):
    code, output, seconds = killed
    assert code != 0
    assert seconds < 60
    # Of the one that was killed, or, if it was seen first, of the other.
    assert ('Signal 9 (SIGKILL)' in output
            or 'lost the connection to another process' in output)


def test_options_reach_the_run(killed, left):
    _, output, _ = killed
    # One line each, of the first process.
    assert output.count('data are read from my data instead of') == 1
    assert output.count('trainable group norm') == 1
    assert 'mixed precision has no effect' in output
    # 2 processes with 1 image each, where 16 images are meant.
    assert 'Scaling the original LR by 0.125' in output
    group, = left['optimizer']['param_groups']
    assert group['initial_lr'] == 0.02 * 2 / 16
    assert 'Epoch(val)' not in output
    assert Path('my run/my config.py').exists()


def test_resumed_run_goes_on(resumed):
    epoch, before, output = resumed
    assert re.search(rf'epoch_{epoch + 1}\.pth is damaged', output)
    assert f'resumed epoch: {epoch}, iter: {2 * epoch}' in output
    assert 'MMDET_DATASETS: data are read from' in output
    checkpoint = torch.load(
        f'my run/epoch_{epoch + 1}.pth', weights_only=False)
    assert checkpoint['meta']['iter'] == 2 * epoch + 2
    after = checkpoint['state_dict']
    assert before.keys() == after.keys()
    assert not torch.equal(before['neck.lateral_convs.0.conv.weight'],
                           after['neck.lateral_convs.0.conv.weight'])
    # Validated at the end, by the processes together.
    assert 'coco/segm_mAP:' in output


def test_distributed_test(resumed, folder, check_published):
    checkpoint = Path('my run/last_checkpoint').read_text()
    output = run(TOOLS / 'dist_test.sh', 'my config.py', checkpoint, 2,
                 '--data-root', 'my data', '--work-dir', 'my test',
                 '--from-scratch', '--tta', '--out', 'my test/pred.pkl',
                 '--show-dir', 'my pictures')
    assert '--tta: by default tta_model=mmfishnet.MaskTTAModel' in output
    for kind in ('bbox', 'segm'):
        assert re.search(rf'coco/{kind}_mAP: \d', output)
    # Each image once, whichever process had it.
    predictions = pickle.loads(Path('my test/pred.pkl').read_bytes())
    assert sorted(p['img_id'] for p in predictions) == sorted(
        image['id'] for image in annotations(folder)['images'])
    # 5 objects at most in each of the two views.
    counts = [len(p['pred_instances']['masks']) for p in predictions]
    assert max(counts) > 0
    assert counts == [len(p['pred_instances']['scores']) for p in predictions]
    # MMDetection's visualizer draws in the first process only.
    pictures = list(Path('my test').glob('*/my pictures/*.jpg'))
    assert len(pictures) == 2
    assert f'pictures: in {pictures[0].absolute().parent}' in output

    _, card = check_published(checkpoint, next(
        folder.glob('my data/val2017/*.jpg')))
    assert 'detection' in card and '| coco/segm_mAP | ' in card


@pytest.fixture(scope='module')
def classifier(folder):
    draw_classification('my shapes', 12, 12, size=32, seed=0)
    Path('classifier.py').write_text(CLASSIFIER)
    return run(sys.executable, TOOLS / 'train.py', 'classifier.py',
               '--data-root', 'my shapes')


def test_classification(classifier, call_tool):
    assert 'accuracy/top1:' in classifier
    done = call_tool(
        'test', 'classifier.py', 'work_dirs/classifier/epoch_1.pth',
        '--data-root', 'my shapes', '--show-dir', 'my pictures')
    place = Path('my pictures').absolute()
    assert f'pictures: in {place}' in done.stdout + done.stderr
    output = run(sys.executable, TOOLS / 'test.py', 'classifier.py',
                 'work_dirs/classifier/epoch_1.pth', '--data-root',
                 'my shapes', '--tta', '--out', 'metrics.json', '--out-item',
                 'metrics', '--cfg-options', 'test_evaluator.topk=1')
    merged = 'tta_model=mmpretrain.AverageClsScoreTTA'
    assert f'--tta: by default {merged}' in output
    top1, = json.loads(Path('metrics.json').read_text()).values()
    assert f'accuracy/top1: {top1:.4f}' in output
    assert len(list(Path('my pictures').rglob('*.png'))) == 12


# What is refused, is so before anything is read.


@pytest.fixture
def refusal(call_tool, monkeypatch):
    """refusal(tool, *args): what it says when it refuses to begin."""
    for variable in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MMDET_DATASETS'):
        monkeypatch.delenv(variable, raising=False)

    def refusal(tool, *args):
        done = call_tool(tool, *args)
        assert done.returncode
        return done.stderr

    return refusal


def test_missing_weights(folder, refusal):
    # The data, 'data/coco/', are not there either.
    message = refusal('train', 'my config.py')
    assert 'no/fishnet150.pth are not there' in message
    assert 'get_weights.py fishnet150' in message


@pytest.mark.parametrize('args, message', [
    (['no.py'], r'no\.py'),
    (['my config.py', '--data-root', 'nowhere'], '--data-root.*nowhere'),
    (['my config.py', '--resume', 'no.pth'], r'no\.pth does not exist'),
    (['my config.py', '--auto-scale-lr', '--cfg-options',
      'auto_scale_lr=None'], 'base_batch_size'),
    (['my config.py', '--from-scratch', '--launcher', 'pytorch'],
     'RANK.*dist_train.sh'),
])
def test_train_says_what_is_wrong(folder, refusal, args, message):
    assert re.search(message, refusal('train', *args))


@pytest.mark.parametrize('args, message', [
    ([], r'no\.pth does not exist'),
    (['--out', 'pred.json'], r'\.pkl'),
    (['--out-item', 'pred'], 'needs --out'),
])
def test_test_says_what_is_wrong(folder, refusal, args, message):
    assert re.search(message,
                     refusal('test', 'my config.py', 'no.pth', *args))


@pytest.mark.parametrize('script, args', [
    ('dist_train.sh', ['config.py']),
    ('dist_train.sh', ['config.py', '--resume']),
    ('dist_test.sh', ['config.py', 'checkpoint.pth', '0']),
    ('slurm_train.sh', ['partition', 'job', 'config.py']),
    ('slurm_test.sh', ['partition', 'job', 'config.py']),
])
def test_scripts_say_how_to_call_them(script, args):
    code, output = finish(start(TOOLS / script, *args))
    assert code == 2
    assert output.startswith('Usage: ')
