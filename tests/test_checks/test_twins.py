# Copyright (c) mmfishnet authors. All rights reserved.
"""Stock configs of each layout: what upstream builds has no error of ours."""
import pytest

import twins_check


@pytest.mark.parametrize('name', twins_check.TELLING)
def test_stock_config(name):
    state, errors = twins_check.check_stock(name)
    assert state.startswith('checked') and not errors
