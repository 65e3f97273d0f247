# Copyright (c) mmfishnet authors. All rights reserved.
"""What upstream says at every start, as it says it."""
import sys
import warnings

import pytest
from mmengine.fileio import FileClient
from mmengine.logging import MMLogger
from mmengine.utils.dl_utils import set_multi_processing

from mmfishnet.engine.noise import is_news, leave_out_noise


@pytest.mark.parametrize('quiet', [False, True])
def test_noise_and_nothing_else_is_left_out(quiet, monkeypatch, capsys):
    coco = pytest.importorskip('pycocotools.coco')
    logger = MMLogger.get_instance(f'noise{quiet}', logger_name='noise')
    for handler in logger.handlers:
        monkeypatch.setattr(handler, 'stream', sys.stdout, raising=False)
    monkeypatch.setattr(sys, 'stdout', sys.stdout)
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        monkeypatch.delenv(name, raising=False)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter('always')
        if quiet:
            leave_out_noise()
            logger.addFilter(is_news)
        FileClient('disk')
        coco.COCO().createIndex()
        set_multi_processing(distributed=True)
        warnings.warn('faster_coco_eval is not installed, so',
                      stacklevel=1)
        warnings.warn('mine', stacklevel=1)
        logger.warning('mine too')
        print('Could not import OneDL data sets')
        print('mine three')
        print()
        print('mine four')
    said = capsys.readouterr().out
    found = {word for word in ('FileClient', 'HardDiskBackend', 'index',
                               'OneDL')
             if word in said}
    found |= {str(w.message).split()[0] for w in warned}
    assert {'mine'} <= found
    assert 'mine too' in said and 'mine three\n\nmine four\n' in said
    noise = {'FileClient', 'HardDiskBackend', 'index', 'OneDL', 'Setting',
             'faster_coco_eval'}
    if quiet:
        assert not found & noise
    else:  # one is said once in a process
        assert noise - found <= {'HardDiskBackend'}
