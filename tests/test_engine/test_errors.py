"""What a user can put right is said in a line."""
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmfishnet.engine.errors import RunStopped, short_errors

ROOT = Path(__file__).parents[2]


def test_errors_of_users_are_short(capsys):
    for error in (ValueError('no'), FileNotFoundError('no'), RunStopped('no')):
        with pytest.raises(SystemExit, match='1'), short_errors():
            raise error
        assert capsys.readouterr().err == 'error: no\n'
    with pytest.raises(SystemExit), short_errors():
        open('/not/here')
    assert capsys.readouterr().err == (
        'error: /not/here: No such file or directory.\n')
    with pytest.raises(SystemExit, match='143'), short_errors(OSError):
        raise RunStopped('told to', 143)
    with pytest.raises(ValueError), short_errors(OSError):
        raise ValueError('a fault of the program')


def test_ctrl_c_is_short(tmp_path):
    """It names the checkpoint, and Python ends by the signal."""
    (tmp_path / 'epoch_1.pth').touch()
    done = subprocess.run(
        [sys.executable, '-c', 'import os, signal, time\n'
         'from mmfishnet.engine.errors import *\n'
         f'with short_errors(), tells_how_to_go_on({str(tmp_path)!r}):\n'
         '    os.kill(os.getpid(), signal.SIGINT)\n'
         '    time.sleep(9)'],
        # A shell's background jobs do not listen to it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env={**os.environ, 'PYTHONPATH': str(ROOT)}, stderr=subprocess.PIPE,
        text=True)
    assert done.returncode == -signal.SIGINT
    assert done.stderr == (
        'error: interrupted by Ctrl-C; --resume goes on from '
        f'{tmp_path}/epoch_1.pth.\n')
