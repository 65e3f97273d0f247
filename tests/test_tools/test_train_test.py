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
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.device import get_device

from fish import RECIPE
from mmfishnet.datasets import draw_classification, draw_coco

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')
pytestmark = pytest.mark.skipif(
    get_device() != 'cpu', reason='two processes need two GPUs')

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools'
CLASSIFIER = ROOT / 'configs/classification/fishnet_shapes.py'

# 'FishNet' without a scope: the tools import mmfishnet. No weights are
# there, and batch norm is fixed, as in the paper's recipe.
CONFIG = f"""
_base_ = '{ROOT}/configs/shapes/mask_rcnn_fishnet_shapes.py'
model = dict(
    backbone=dict(
        type='FishNet', init_cfg=dict(checkpoint='no/fishnet150.pth'),
        **{RECIPE}),
    # Else the untrained model draws a hundred objects on every picture.
    test_cfg=dict(rcnn=dict(max_per_img=5)))
train_dataloader = dict(batch_size=1)
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
    env = dict(os.environ, PYTHON=sys.executable, PYTHONPATH=str(ROOT),
               OMP_NUM_THREADS='1', **env)
    return subprocess.Popen(
        list(map(str, command)), env=env, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True)


def finish(process):
    """Wait for a command; gives its exit code and what it printed."""
    try:
        output, _ = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(process.communicate()[0])
    return process.returncode, output


def run(*command, **env):
    """Run a command that should succeed; gives what it printed."""
    code, output = finish(start(*command, **env))
    assert code == 0, output
    # What upstream says at every start, and nobody can do anything about
    for noise in ('OneDL', 'deprecated', 'UserWarning', 'FutureWarning'):
        assert noise not in output
    return output


def free_port():
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Data and a config; the tools are called from here, with spaces."""
    folder = tmp_path_factory.mktemp('white space')
    draw_coco(folder / 'my data', 4, 4, size=64, seed=0)
    (folder / 'my config.py').write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope='module')
def killed(folder):
    """A training of which one process was killed; its last checkpoint."""
    process = start(
        TOOLS / 'dist_train.sh', 'my config.py', 2, '--data-root', 'my data',
        '--work-dir', 'my run', '--from-scratch', '--no-validate', '--amp',
        '--auto-scale-lr', '--cfg-options', 'train_cfg.max_epochs=1000')
    limit = time.monotonic() + 600
    while not Path('my run/last_checkpoint').exists():
        if process.poll() is not None or time.monotonic() > limit:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(finish(process)[1])
        time.sleep(0.1)
    workers = subprocess.check_output(['pgrep', '-P', str(process.pid)])
    _, second = map(int, workers.split())
    os.kill(second, signal.SIGKILL)
    since = time.monotonic()
    code, output = finish(process)
    assert code != 0
    assert time.monotonic() - since < 60
    return output, Path(Path('my run/last_checkpoint').read_text())


def test_killed_process_ends_the_job(killed):
    output, checkpoint = killed
    # Of the one that was killed, or, if it was seen first, of the other.
    assert ('Signal 9 (SIGKILL)' in output
            or 'lost the connection to another process' in output)
    # One line each, of the first process.
    assert output.count('data are read from my data instead of') == 1
    assert output.count('trainable group norm') == 1
    assert 'mixed precision has no effect' in output
    # 2 processes with 1 image each, where 8 images are meant.
    assert 'Scaling the original LR by 0.25' in output
    group, = torch.load(
        checkpoint, weights_only=False)['optimizer']['param_groups']
    assert group['initial_lr'] == 1.5e-3 * 2 / 8
    assert 'Epoch(val)' not in output
    assert Path('my run/my config.py').exists()


@pytest.fixture(scope='module')
def resumed(killed, folder):
    """The checkpoint of the training that went on from there, as a job of
    Slurm."""
    _, last = killed
    epoch = int(last.stem.removeprefix('epoch_'))
    before = torch.load(last, weights_only=False)['state_dict']
    # Another process was killed while it saved the next checkpoint.
    newer = last.with_stem(f'epoch_{epoch + 1}')
    newer.write_bytes(last.read_bytes()[:-500])
    Path('my run/last_checkpoint').write_text(str(newer))

    Path('bin').mkdir()
    for name, script in (('srun', SRUN), ('scontrol', SCONTROL)):
        Path('bin', name).write_text(script)
        Path('bin', name).chmod(0o755)
    output = run(
        TOOLS / 'slurm_train.sh', 'partition', 'my job', 'my config.py',
        'my run', '--from-scratch', '--resume', '--cfg-options',
        f'train_cfg.max_epochs={epoch + 1}',
        PATH=f'{folder}/bin:{os.environ["PATH"]}', GPUS='2',
        MASTER_PORT=str(free_port()), MMDET_DATASETS=str(folder / 'my data'))
    assert re.search(rf'epoch_{epoch + 1}\.pth is damaged', output)
    assert f'resumed epoch: {epoch}, iter: {2 * epoch}' in output
    assert 'MMDET_DATASETS: data are read from' in output
    # Validated at the end, by the processes together.
    assert 'coco/segm_mAP:' in output
    content = torch.load(newer, weights_only=False)
    assert content['meta']['iter'] == 2 * epoch + 2
    after = content['state_dict']
    assert before.keys() == after.keys()
    name = 'neck.lateral_convs.0.conv.weight'
    assert not torch.equal(before[name], after[name])
    return newer


def test_resumed_and_tested(resumed, folder, check_published):
    output = run(TOOLS / 'dist_test.sh', 'my config.py', resumed, 2,
                 '--data-root', 'my data', '--work-dir', 'my test',
                 '--from-scratch', '--tta', '--out', 'my test/pred.pkl',
                 '--show-dir', 'my pictures')
    assert '--tta: by default tta_model=mmfishnet.MaskTTAModel' in output
    for kind in ('bbox', 'segm'):
        assert re.search(rf'coco/{kind}_mAP: \d', output)
    # Each image once, whichever process had it.
    predictions = pickle.loads(Path('my test/pred.pkl').read_bytes())
    images = json.loads(Path(
        'my data/annotations/instances_val2017.json').read_text())['images']
    assert sorted(p['img_id'] for p in predictions) == sorted(
        image['id'] for image in images)
    # 5 objects at most in each of the two views.
    counts = [len(p['pred_instances']['masks']) for p in predictions]
    assert max(counts) > 0
    assert counts == [len(p['pred_instances']['scores']) for p in predictions]
    # MMDetection's visualizer draws in the first process only.
    pictures = list(Path('my test').glob('*/my pictures/*.jpg'))
    assert len(pictures) == 2
    assert f'pictures: in {pictures[0].absolute().parent}' in output

    _, card = check_published(resumed, next(
        folder.glob('my data/val2017/*.jpg')))
    assert 'detection' in card and '| coco/segm_mAP | ' in card


def test_classification(folder, call_tool):
    draw_classification('my shapes', 12, 12, size=32, seed=0)
    options = ['--data-root', 'my shapes', '--cfg-options',
               'train_cfg.max_epochs=1', 'train_dataloader.batch_size=6', *(
                   f'{part}_dataloader.num_workers=0'
                   for part in ('train', 'val', 'test'))]

    def tool(name, *args):
        done = call_tool(name, CLASSIFIER, *args, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert 'accuracy/top1:' in tool('train')
    checkpoint = 'work_dirs/fishnet_shapes/epoch_1.pth'
    output = tool('test', checkpoint, '--show-dir', 'my drawings')
    place = Path('my drawings').absolute()
    assert f'pictures: in {place}' in output
    assert len(list(place.rglob('*.png'))) == 12
    options.append('test_evaluator.topk=1')
    output = tool('test', checkpoint, '--tta', '--out', 'metrics.json',
                  '--out-item', 'metrics')
    merged = 'tta_model=mmpretrain.AverageClsScoreTTA'
    assert f'--tta: by default {merged}' in output
    top1, = json.loads(Path('metrics.json').read_text()).values()
    assert f'accuracy/top1: {top1:.4f}' in output


# What is refused, is so before anything is read.
@pytest.mark.parametrize('tool, args, message', [
    # The data, 'data/shapes/', are not there either.
    ('train', [], r'no/fishnet150\.pth are not there[^$]*get_weights\.py '
     'fishnet150'),
    ('train', ['--data-root', 'nowhere'], '--data-root.*nowhere'),
    ('train', ['--resume', 'no.pth'], r'no\.pth does not exist'),
    ('train', ['--auto-scale-lr', '--cfg-options', 'auto_scale_lr=None'],
     'base_batch_size'),
    ('train', ['--from-scratch', '--launcher', 'pytorch'],
     'RANK.*dist_train.sh'),
    ('test', ['no.pth'], r'no\.pth does not exist'),
    ('test', ['no.pth', '--out', 'pred.json'], r'\.pkl'),
    ('test', ['no.pth', '--out-item', 'pred'], 'needs --out'),
])
def test_what_is_refused(folder, call_tool, monkeypatch, tool, args, message):
    for variable in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MMDET_DATASETS'):
        monkeypatch.delenv(variable, raising=False)
    done = call_tool(tool, 'my config.py', *args)
    assert done.returncode
    assert re.search(message, done.stderr)
