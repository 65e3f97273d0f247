# Copyright (c) mmfishnet authors. All rights reserved.
"""``python -m mmfishnet doctor``: what is installed here, and does it work."""
import argparse
import sys

from .doctor import examine

if __name__ == '__main__':
    parser = argparse.ArgumentParser('python -m mmfishnet',
                                     description=__doc__)
    parser.add_argument(
        'command', choices=['doctor'],
        help='doctor: say what of the environment works, what is missing, and '
        'what to do about it; the text that an issue report should contain. '
        'The exit status is 1 if Mask R-CNN cannot be trained here')
    parser.parse_args()
    sys.exit(examine())
