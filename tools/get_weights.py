# Copyright (c) mmfishnet authors. All rights reserved.
"""Get published ImageNet weights and put them where the configs look.

A transfer that breaks goes on where it stopped, now or in the next run.
"""
import argparse
import os.path as osp
from pathlib import Path

from mmengine.config import Config

from mmfishnet.checkpoints import CheckpointError
from mmfishnet.checkpoints.download import (
    SOURCES,
    DownloadError,
    fetch_weights,
)
from mmfishnet.models.released import convert_file

ROOT = Path(__file__).resolve().parents[1]


def parse_args():
    sources = '\n'.join(
        f'  {name:<11} {source:<15} {facts.accuracy}'
        for name, found in SOURCES.items() for source, facts in found.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='networks, sources (the first is the default) and what their '
        f'publishers say of them on ImageNet:\n{sources}',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', choices=SOURCES, help='network')
    parser.add_argument('--source', help='whose weights, see below')
    parser.add_argument(
        '--dir', help='folder (default: where configs/_base_/pretrained.py '
        'says, seen from the current folder)')
    parser.add_argument(
        '--url', help='get the file from this address, such as a mirror')
    parser.add_argument(
        '--sha1',
        help='with --url: checksum of the checkpoint, unpacked, or the first '
        'digits of it')
    parser.add_argument(
        '--force', action='store_true', help='replace a file that is there')
    args = parser.parse_args()
    found = SOURCES[args.name]
    args.source = args.source or next(iter(found))
    if args.source not in found:
        parser.error(f'--source {args.source}: {args.name} has '
                     f'{" and ".join(found)}')
    if args.sha1 and not args.url:
        parser.error('--sha1 goes with --url')
    return args


def advise(name, source, target):
    """What is left to do by hand."""
    lines = ['Other ways to get it:']
    for other, facts in SOURCES[name].items():
        if other != source:
            lines.append(f'  python tools/get_weights.py {name} --source '
                         f'{other}   ({facts.accuracy})')
    pages = [
        page for facts in SOURCES[name].values()
        for page in (facts.url, facts.page) if page
    ]
    lines.append('  or download it with a browser from ' + ' or '.join(pages))
    lines.append('  and then: python tools/convert_checkpoint.py FILE '
                 f'{target}')
    return '\n'.join(lines)


def main():
    args = parse_args()
    target = Config.fromfile(
        ROOT / 'configs/_base_/pretrained.py').pretrained[args.name]
    if args.dir:
        target = osp.join(args.dir, osp.basename(target))
    if osp.exists(target) and not args.force:
        print(f'{target} is there already; --force gets it again.')
        return
    facts = SOURCES[args.name][args.source]
    url, sha1 = (args.url, args.sha1) if args.url else (facts.url, facts.sha1)
    try:
        fetch_weights(args.name, url, sha1, target, convert_file)
    except (DownloadError, CheckpointError) as error:
        raise SystemExit(f'get_weights.py: {error}\n' + advise(
            args.name, args.source, target)) from None
    checked = f'SHA-1 {sha1}' if sha1 else 'no checksum is published for it'
    print(f'{target}: {args.name} from {url} ({checked}).')


if __name__ == '__main__':
    main()
