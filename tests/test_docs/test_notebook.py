"""The notebook, from its first cell to its last, in a shorter form."""
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_notebook(tmp_path, monkeypatch):
    nbformat = pytest.importorskip('nbformat')
    nbclient = pytest.importorskip('nbclient')
    pytest.importorskip('ipykernel')
    notebook = nbformat.read(ROOT / 'notebooks/fine_tune.ipynb', as_version=4)
    assert all(not cell.get('outputs') for cell in notebook.cells)
    settings = next(c for c in notebook.cells if 'EPOCHS = ' in c.source)
    shorter = settings.source.replace('1800, 240, 6', '96, 24, 1')
    assert shorter != settings.source
    settings.source = shorter
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    nbclient.NotebookClient(
        notebook, timeout=600,
        resources=dict(metadata=dict(path=str(tmp_path)))).execute()
    texts, pictures = '', 0
    for cell in notebook.cells:
        for output in cell.get('outputs', ()):
            texts += output.get('text', '')
            pictures += 'image/png' in output.get('data', {})
    assert 'of the pictures not trained on' in texts
    assert pictures == 2
    # The fine-tuned backbone started from the first one.
    assert 'first_run/epoch_1.pth' in texts
