import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from . import layouts


@pytest.fixture(scope='session')
def drawn(tmp_path_factory):
    return layouts.Drawn(tmp_path_factory.mktemp('drawn') / 'coco')


@pytest.fixture
def own_data(call_tool, tmp_path):
    """own_data(folder, *args): the tool, and the config that it wrote."""

    def own_data(folder, *args, name='mine.py'):
        path = tmp_path / 'made' / name
        done = call_tool('dataset_tools/own_data', folder, path,
                         '--overwrite', *args)
        assert 'Traceback' not in done.stderr
        return done, Config.fromfile(path) if not done.returncode else None

    return own_data


def built(cfg, part='train'):
    init_default_scope(cfg.default_scope)
    return DATASETS.build(cfg[f'{part}_dataloader'].dataset)
