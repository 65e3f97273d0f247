# Copyright (c) mmfishnet authors. All rights reserved.
"""Stock configs of each layout: what upstream builds has no error of ours."""
import tempfile

import pytest

import twins_check


@pytest.fixture(scope='module')
def folders():
    with tempfile.TemporaryDirectory() as root:
        yield dict(root=root)


@pytest.mark.parametrize('name', twins_check.TELLING)
def test_stock_config(name, folders):
    package, _, path = name.partition('/')
    state, errors = twins_check.check_stock(
        twins_check.configs_of(package) / path, folders)
    assert state.startswith('checked') and not errors
