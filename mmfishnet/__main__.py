# Copyright (c) mmfishnet authors. All rights reserved.
"""``python -m mmfishnet doctor``: what is installed here, and does it work."""
import argparse
import sys

from .doctor import examine


def main() -> int:
    parser = argparse.ArgumentParser(
        prog='python -m mmfishnet', description=__doc__)
    commands = parser.add_subparsers(required=True, metavar='command')
    commands.add_parser(
        'doctor',
        help='say what of the environment works, what is missing, and what '
        'to do about it; the text that an issue report should contain. The '
        'exit status is 1 if Mask R-CNN cannot be trained here')
    parser.parse_args()
    return examine()


if __name__ == '__main__':
    sys.exit(main())
