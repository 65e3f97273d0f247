import sys
from unittest import mock

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from own_data import OwnData, parse_args

from . import layouts


@pytest.fixture(scope='session')
def drawn(tmp_path_factory):
    return layouts.Drawn(tmp_path_factory.mktemp('drawn') / 'coco')


@pytest.fixture
def laid_out(drawn, tmp_path):
    """laid_out(layout): a folder as a label tool leaves it."""

    def laid_out(layout):
        root = tmp_path / layout / 'white space'
        root.mkdir(parents=True)
        layouts.LAYOUTS[layout](drawn, root)
        return root

    return laid_out


def read(folder, *args):
    """What own_data.py says and its config, before the config is checked."""
    argv = ['own_data.py', folder, 'mine.py', '--overwrite', *args]
    with mock.patch.object(sys, 'argv', [*map(str, argv)]):
        data = OwnData(parse_args())
    text = data.config()
    return '\n'.join(data.notes), Config.fromstring(text, '.py')


def built(cfg, part='train'):
    init_default_scope(cfg.default_scope)
    return DATASETS.build(cfg[f'{part}_dataloader'].dataset)
