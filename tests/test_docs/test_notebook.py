"""The notebook, from its first cell to its last, in a shorter form."""
import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_notebook(tmp_path, monkeypatch):
    notebook = json.loads((ROOT / 'notebooks/fine_tune.ipynb').read_text())
    cells = [''.join(cell['source']) for cell in notebook['cells']
             if cell['cell_type'] == 'code']
    assert not any(cell.get('outputs') for cell in notebook['cells'])
    shorter = [cell.replace('1800, 240, 6', '96, 24, 1') for cell in cells]
    assert shorter != cells
    monkeypatch.chdir(tmp_path)
    plt.switch_backend('agg')
    plt.close('all')
    names = {}
    with redirect_stdout(io.StringIO()) as said:
        for cell in shorter:
            exec(compile(cell, '<notebook>', 'exec'), names)
    assert 'of the pictures not trained on' in said.getvalue()
    assert len(plt.get_fignums()) == 2
    plt.close('all')
    # The fine-tuned backbone started from the first one.
    assert 'first_run/epoch_1.pth' in said.getvalue()
