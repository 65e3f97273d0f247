# Copyright (c) mmfishnet authors. All rights reserved.
"""In a process of its own: what is imported says so once."""
import subprocess
import sys

CODE = """
import sys, warnings
import mmfishnet
from mmfishnet.engine.noise import is_news, leave_out_noise
assert 'mmdet.datasets' not in sys.modules
if 'quiet' in sys.argv:
    leave_out_noise()
import logging
import mmdet.datasets, mmdet.evaluation
from mmengine.fileio import FileClient
from mmengine.logging import MMLogger
from mmengine.utils.dl_utils import set_multi_processing
from pycocotools.coco import COCO
logger = MMLogger.get_instance('noise')
if 'quiet' in sys.argv:
    logger.addFilter(is_news)
FileClient('disk')
COCO().createIndex()
set_multi_processing(distributed=True)
warnings.warn('mine')
logger.warning('mine too')
print('mine three')
print()
print('mine four')
"""
NOISE = ('OneDL', 'NUM_THREADS', 'FileClient', 'HardDiskBackend',
         'index')


def said(*args):
    done = subprocess.run([sys.executable, '-c', CODE, *args],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_noise_and_nothing_else_is_left_out():
    quiet = said('quiet')
    assert not [word for word in NOISE if word in quiet]
    assert 'mine\n' in quiet and 'mine too' in quiet
    assert 'mine three\n\nmine four\n' in quiet
    # An import of mmfishnet does not; MMEngine and MMDetection still say so.
    assert 'FileClient' in (loud := said()) and 'index created' in loud
