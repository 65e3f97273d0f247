"""Processes that load data outlive a scheduler's signal, not the training."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path
from mmfishnet.engine.errors import short_errors
from test_exact import train

folder = Path(sys.argv[1])
workers = dict(workers=1, val_workers=1, level='INFO')
train(folder / 'through', epochs=1, **workers)
with short_errors():
    train(folder / 'stopped', epochs=1000, **workers)
"""


@pytest.mark.slow
def test_signal_to_all(tmp_path):
    """As a scheduler sends it: a checkpoint is written, and all end.

    Those that load data for the validation are there from the first one on,
    and those of a run before still are.
    """
    process = subprocess.Popen(
        [sys.executable, '-c', CODE, tmp_path], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(
            [str(Path(__file__).parent), *sys.path])))
    try:
        lines = iter(process.stdout)
        # Of the first run, and of the second one.
        for word in ('(val) ', ' [2]', '(val) ', '(train) '):
            assert any(word in line for line in lines), word
        os.killpg(process.pid, signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 143 and 'told to end' in printed
        assert (tmp_path / 'stopped/stopped.pth').is_file(), printed
        time.sleep(1)
        with pytest.raises(ProcessLookupError):  # no worker is left
            os.killpg(process.pid, 0)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
