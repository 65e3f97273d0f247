# Copyright (c) mmfishnet authors. All rights reserved.
"""``python -m mmfishnet COMMAND``: the doctor, and the tools."""
import argparse
import os
import sys
from pathlib import Path

TOOLS = ('check', 'convert_checkpoint', 'dataset_tools/draw_shapes',
         'dataset_tools/own_data', 'export', 'get_weights', 'predict',
         'publish', 'report', 'test', 'train')


def main() -> None:
    """Examine the environment, or become the process of a tool."""
    tools = {Path(name).name: f'{name}.py' for name in TOOLS}
    parser = argparse.ArgumentParser(
        'python -m mmfishnet', description=__doc__)
    parser.add_argument(
        'command', choices=['doctor', *tools], metavar='COMMAND',
        help='doctor: say what of the environment works, what is missing, and '
        'what to do about it; the text that an issue report should contain. '
        'The exit status is 1 if Mask R-CNN cannot be trained here. Or a '
        f'tool: {", ".join(tools)}, each with --help')
    command = parser.parse_args(sys.argv[1:2]).command
    if command == 'doctor':
        from .doctor import examine
        parser.parse_args(sys.argv[1:])  # it takes no more
        sys.exit(examine())
    here = Path(__file__).resolve().parent
    # As installed, or in a checkout.
    folder = here / '.mim/tools'
    folder = folder if folder.is_dir() else here.parent / 'tools'
    os.execv(sys.executable, [
        sys.executable, str(folder / tools[command]), *sys.argv[2:]])


if __name__ == '__main__':
    main()
