# Copyright (c) mmfishnet authors. All rights reserved.
"""The tool against a server of its own, on 127.0.0.1."""
import hashlib
import os
import re
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from mmfishnet.checkpoints.download import (
    DownloadError,
    download,
    fetch_weights,
)

from mmfishnet.checkpoints import CheckpointError
from mmfishnet.models.convert import convert_file


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, with what the server's ``options`` ask for.

    ``ranges``: whether it can go on in the middle of a file; ``breaks``: how
    many transfers break off half way.
    """

    def do_GET(self):
        options = self.server.options
        path = Path(self.translate_path(self.path))
        self.server.asked.append(self.headers.get('Range'))
        if not path.is_file():
            return self.send_error(404)
        content, start = path.read_bytes(), 0
        wanted = re.match(r'bytes=(\d+)-', self.headers.get('Range', ''))
        if wanted and options.get('ranges', True):
            start = int(wanted[1])
            if start >= len(content):
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(content)}')
                self.send_header('Content-Length', '0')
                return self.end_headers()
            self.send_response(206)
            self.send_header(
                'Content-Range',
                f'bytes {start}-{len(content) - 1}/{len(content)}')
        else:
            self.send_response(200)
        rest = content[start:]
        self.send_header('Content-Type', self.guess_type(path))
        self.send_header('Content-Length', str(len(rest)))
        self.end_headers()
        if options.get('breaks', 0) > 0:
            options['breaks'] -= 1
            rest = rest[:len(rest) // 2]
        self.wfile.write(rest)
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    folder = tmp_path / 'published'
    folder.mkdir()
    server = ThreadingHTTPServer(('127.0.0.1', 0),
                                 partial(Handler, directory=str(folder)))
    server.folder, server.asked, server.options = folder, [], {}
    server.url = f'http://127.0.0.1:{server.server_port}'
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


CONTENT = os.urandom(3 << 20)


@pytest.fixture
def target(server, tmp_path):
    (server.folder / 'file.bin').write_bytes(CONTENT)
    return tmp_path / 'here/file.bin'


def test_goes_on_after_a_break(server, target):
    server.options.update(breaks=2)
    download(f'{server.url}/file.bin?dl=1', str(target), progress=False)
    assert target.read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.asked == [
        None, f'bytes={half}-', f'bytes={half + half // 2}-'
    ]
    assert os.listdir(target.parent) == ['file.bin']


def test_goes_on_in_the_next_run(server, target):
    server.options.update(breaks=9)
    with pytest.raises(
            DownloadError, match=r'broke after 1572864 of 3145728 bytes, 1 '
            r'times. .*file.bin.part; run again to go on'):
        download(f'{server.url}/file.bin', str(target), retries=0)
    assert not target.exists()
    server.options.clear()
    download(f'{server.url}/file.bin', str(target))
    assert target.read_bytes() == CONTENT
    assert server.asked == [None, f'bytes={len(CONTENT) // 2}-']


def test_starts_again_where_ranges_are_unknown(server, target):
    server.options.update(breaks=1, ranges=False)
    download(f'{server.url}/file.bin', str(target))
    assert target.read_bytes() == CONTENT


def test_complete_part_is_taken(server, target):
    target.parent.mkdir()
    Path(f'{target}.part').write_bytes(CONTENT)
    download(f'{server.url}/file.bin', str(target))
    assert target.read_bytes() == CONTENT


def test_part_of_another_file_is_dropped(server, target):
    target.parent.mkdir()
    Path(f'{target}.part').write_bytes(CONTENT + b'more')
    download(f'{server.url}/file.bin', str(target))
    assert target.read_bytes() == CONTENT


def test_dead_links(server, target):
    with pytest.raises(DownloadError, match='/no.bin: HTTP 404 Not Found'):
        download(f'{server.url}/no.bin', str(target))
    server.folder.joinpath('page.html').write_text('<html>Sign in</html>')
    with pytest.raises(DownloadError, match='a web page instead of the file'):
        download(f'{server.url}/page.html', str(target))
    with pytest.raises(DownloadError, match='127.0.0.1:1/.* refused'):
        download('http://127.0.0.1:1/file.bin', str(target))
    with pytest.raises(DownloadError, match='unknown url type'):
        download('file.bin', str(target))
    assert os.listdir(target.parent) == []


@pytest.fixture
def published(server):
    """FishNet-99 as pytorchcv would publish it: alone in a ZIP archive."""
    fishnet = pytest.importorskip('pytorchcv.models.fishnet')
    state = fishnet.fishnet99().state_dict()
    path = server.folder / 'net.pth'
    torch.save(state, path)
    with zipfile.ZipFile(f'{path}.zip', 'w') as archive:
        archive.write(path, 'net.pth')
    server.sha1 = hashlib.sha1(path.read_bytes()).hexdigest()
    server.state = state
    return server


def test_puts_weights_where_the_configs_look(published, tmp_path, run_tool,
                                             call_tool, monkeypatch):
    published.options.update(breaks=1)
    args = ('fishnet99', '--url', f'{published.url}/net.pth.zip', '--sha1',
            published.sha1[:8])
    done = run_tool('get_weights', *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'checkpoints/fishnet99_in1k.pth: fishnet99 from' in done.stdout
    path = tmp_path / 'checkpoints/fishnet99_in1k.pth'
    assert os.listdir(path.parent) == [path.name]
    state = torch.load(path, weights_only=True)['state_dict']
    assert torch.equal(state['head.fc.bias'],
                       published.state['output.final_conv.bias'])

    published.asked.clear()
    monkeypatch.chdir(tmp_path)
    assert 'is there already' in call_tool('get_weights', *args).stdout
    assert published.asked == []


@pytest.mark.parametrize('case, message', [
    ('network', 'holds FishNet-99, not fishnet150'),
    ('gone', 'HTTP 404 Not Found'),
    ('cut', 'damaged or cut short'),
    ('archive', 'damaged or cut short'),
])
def test_failure_leaves_nothing_in_place(published, tmp_path, case, message):
    name = 'fishnet150' if case == 'network' else 'fishnet99'
    file = dict(gone='no.pth', archive='net.pth.zip').get(case, 'net.pth')
    if case == 'cut':
        os.truncate(published.folder / file, 1 << 20)
    elif case == 'archive':
        with open(published.folder / file, 'r+b') as archive:
            archive.seek(1 << 20)
            archive.write(b'damage')
    target = tmp_path / 'weights/net.pth'
    with pytest.raises((DownloadError, CheckpointError), match=message):
        fetch_weights(name, f'{published.url}/{file}', None, str(target),
                      convert_file)
    assert os.listdir(target.parent) == []


def test_wrong_checksum(published, tmp_path, call_tool, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call_tool('get_weights', 'fishnet99', '--url',
                     f'{published.url}/net.pth', '--dir', 'weights', '--sha1',
                     '0123abcd')
    assert done.returncode == 1
    assert (f'SHA-1 checksum {published.sha1}, but 0123abcd is '
            'published') in done.stderr
    assert 'python tools/convert_checkpoint.py FILE weights/' in done.stderr
    assert 'Traceback' not in done.stderr
    assert os.listdir(tmp_path / 'weights') == []
