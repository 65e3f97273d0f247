# Copyright (c) mmfishnet authors. All rights reserved.
"""Published weights, from a server of our own on 127.0.0.1."""
import hashlib
import multiprocessing
import os
import shutil
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import CheckpointLoader

from mmfishnet.checkpoints import CheckpointError, drop_pretrained
from mmfishnet.checkpoints.pretrained import require_pretrained
from mmfishnet.checkpoints.published import (
    SOURCES,
    DownloadError,
    Source,
    fetch_file,
    find_published,
)
from mmfishnet.checkpoints.read import read_checkpoint
from mmfishnet.config import config_path
from mmfishnet.models import FishNet
from mmfishnet.models.convert import convert

ADDRESS = 'mmfishnet://fishnet99'


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, and counts."""

    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    """FishNet-99 as pytorchcv would publish it: alone in a ZIP archive."""
    fishnet = pytest.importorskip('pytorchcv.models.fishnet')
    folder = tmp_path_factory.mktemp('published')
    state = fishnet.fishnet99().state_dict()
    torch.save(state, folder / 'net.pth')
    with zipfile.ZipFile(folder / 'net.pth.zip', 'w') as archive:
        archive.write(folder / 'net.pth', 'net.pth')
    return folder, state


@pytest.fixture
def server(published, tmp_path, monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(published[0], tmp_path / 'published')
    with ThreadingHTTPServer(
            ('127.0.0.1', 0), partial(Handler, directory=str(folder))) as it:
        it.folder, it.state, it.asked = folder, published[1], []
        it.url = f'http://127.0.0.1:{it.server_port}'
        it.kept = tmp_path / 'home/hub/checkpoints/net.pth.zip'
        sha1 = hashlib.sha1((folder / 'net.pth').read_bytes()).hexdigest()
        source = Source(f'{it.url}/net.pth.zip', 'top-1 0 %', sha1=sha1[:8])
        monkeypatch.setitem(SOURCES, 'fishnet99', dict(authors=source))
        thread = threading.Thread(target=it.serve_forever)
        thread.start()
        yield it
        it.shutdown()
        thread.join()


def test_a_name_as_checkpoint(server):
    """Fetched once, and kept where torch.hub keeps what it fetches."""
    init_cfg = dict(type='Pretrained', checkpoint=ADDRESS)
    model = dict(backbone=dict(init_cfg=init_cfg))
    assert drop_pretrained(dict(a=dict(init_cfg=init_cfg)),
                           only_missing=True) == [ADDRESS]
    require_pretrained(model)
    fish = FishNet(99, init_cfg=init_cfg)
    fish.init_weights()
    stem = server.state['features.init_block.conv1.conv.weight']
    assert torch.equal(fish.stem[0].weight, stem)
    assert server.kept.exists()
    assert drop_pretrained(model, only_missing=True) == []
    # Any model's: by MMEngine's own loader, under our names.
    state = CheckpointLoader.load_checkpoint(ADDRESS, 'cpu')['state_dict']
    assert state.keys() == convert(server.state).keys()
    assert server.asked == ['/net.pth.zip']


def test_a_file_of_ones_own_goes_first(server):
    os.mkdir('checkpoints')
    torch.save(FishNet(99).state_dict(), 'checkpoints/fishnet99_in1k.pth')
    assert find_published(ADDRESS) == 'checkpoints/fishnet99_in1k.pth'
    assert find_published(f'{ADDRESS}/authors') == str(server.kept)


def test_without_a_network(server):
    server.folder.joinpath('net.pth.zip').unlink()
    with pytest.raises(DownloadError) as error:
        require_pretrained(dict(init_cfg=dict(
            type='Pretrained', checkpoint=ADDRESS)))
    for part in (f'{server.url}/net.pth.zip: HTTP Error 404', str(server.kept),
                 os.path.abspath('checkpoints/fishnet99_in1k.pth'),
                 'model.init_cfg.checkpoint=FILE', '--from-scratch'):
        assert part in str(error.value)
    server.kept.write_bytes((server.folder / 'net.pth').read_bytes())
    assert find_published(ADDRESS) == str(server.kept)


def test_unknown_name(server):
    for name in 'fishnet98', 'fishnet150/author', 'fishnext150':
        with pytest.raises(CheckpointError, match=f'mmfishnet://{name} was '
                           'not published.*There are mmfishnet://small, '
                           'mmfishnet://fishnet99, '):
            find_published(f'mmfishnet://{name}')


def test_shipped(tmp_path, monkeypatch):
    """The small fish's weights come with the package, whole."""
    monkeypatch.chdir(tmp_path)
    path = Path(find_published('mmfishnet://small', fetch=False))
    content = path.read_bytes()
    assert len(content) <= 3_000_000
    assert hashlib.sha256(content).hexdigest() in path.with_suffix(
        '.md').read_text()
    cfg = Config.fromfile(config_path('small/mask_rcnn_fishnet_small.py'))
    model = MODELS.build(cfg.model.backbone)
    noise = model.head3.refine[0].conv1.weight.clone()
    model.init_weights()
    kept = read_checkpoint(str(path))
    for name, value in model.state_dict().items():
        if name in kept:
            assert torch.equal(value, kept[name]), name
        else:
            assert name.endswith('num_batches_tracked')
    assert not torch.equal(noise, kept['head3.refine.0.conv1.weight'])


def test_processes_fetch_once(server):
    context = multiprocessing.get_context('fork')
    url = f'{server.url}/net.pth.zip'
    processes = [context.Process(target=fetch_file, args=(url, ),
                                 kwargs=dict(progress=False))
                 for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert server.asked == ['/net.pth.zip']
    assert server.kept.read_bytes() == (
        server.folder / 'net.pth.zip').read_bytes()


@pytest.mark.parametrize('case, message', [
    ('gone', 'no.pth: HTTP Error 404'),
    ('cut', 'what came was removed: .*damaged or cut short'),
    ('archive', 'what came was removed: .*damaged or cut short'),
    ('page', r"what came was removed: .*first bytes are b'<html>"),
    ('sha1', 'checksum is [0-9a-f]{40}, but 0123 is published'),
    ('refused', '127.0.0.1:1/a.pth: .*refused'),
    ('no url', 'a.pth: unknown url type'),
])
def test_what_is_not_in_order_is_not_kept(server, tmp_path, case, message):
    file = dict(gone='no.pth', archive='net.pth.zip').get(case, 'net.pth')
    url = dict(refused='http://127.0.0.1:1/a.pth').get(
        case, 'a.pth' if case == 'no url' else f'{server.url}/{file}')
    path = server.folder / file
    if case == 'cut':
        os.truncate(path, 1 << 20)
    elif case == 'page':
        path.write_text('<html>Sign in</html>')
    elif case == 'archive':
        with open(path, 'r+b') as archive:
            archive.seek(1 << 20)
            archive.write(b'damage')
    with pytest.raises(DownloadError, match=message):
        fetch_file(url, '0123' if case == 'sha1' else None,
                   str(tmp_path / 'kept'), progress=False)
    assert not [name for name in os.listdir(tmp_path / 'kept')
                if not name.endswith('.lock')]


def test_tool(server, tmp_path, call_tool):
    done = call_tool('get_weights', 'fishnet99')
    assert done.returncode == 0, done.stderr
    assert 'checkpoints/fishnet99_in1k.pth: fishnet99 from' in done.stdout
    assert os.listdir('checkpoints') == ['fishnet99_in1k.pth']
    state = torch.load('checkpoints/fishnet99_in1k.pth',
                       weights_only=True)['state_dict']
    assert torch.equal(state['head.fc.bias'],
                       server.state['output.final_conv.bias'])
    assert 'is there already' in call_tool('get_weights', 'fishnet99').stdout
    for args, message in (
        (('fishnet150', ), 'holds FishNet-99, not fishnet150'),
        (('fishnet99', '--force', '--sha1', '01'), 'but 01 is published')):
        done = call_tool('get_weights', *args, '--dir', 'other', '--url',
                         f'{server.url}/net.pth')
        assert done.returncode == 1
        assert message in done.stderr
        assert 'python tools/convert_checkpoint.py FILE other/' in done.stderr
        assert 'Traceback' not in done.stderr
        assert not os.path.exists('other')
