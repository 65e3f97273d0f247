# Copyright (c) mmfishnet authors. All rights reserved.
"""Get published ImageNet weights and put them into checkpoints/.

Configs take what is there before anything else. Without it they fetch the
weights by themselves when they first need them (`mmfishnet://NAME`); this
chooses another source, another address, or prepares a machine that will have
no network.
"""
import argparse
import os.path as osp
import shutil
import tempfile

from mmfishnet.checkpoints import CheckpointError
from mmfishnet.checkpoints.published import SOURCES, DownloadError, fetch_file
from mmfishnet.models.convert import convert_file
from mmfishnet.whole_file import whole_file


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
        '--dir', default='checkpoints',
        help='folder (default: checkpoints, in the current folder, where '
        'configs look)')
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


def fetch_and_convert(name, url, sha1, target):
    """Leaves nothing but the target, and that when all is in order."""
    with tempfile.TemporaryDirectory() as folder:
        converted = osp.join(folder, 'converted')
        found = convert_file(fetch_file(url, sha1, folder), converted)
        if found.replace('-', '').lower() != name:
            raise CheckpointError(f'{url} holds {found}, not {name}.')
        with whole_file(target) as part:
            shutil.copyfile(converted, part)


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
    target = osp.join(args.dir, f'{args.name}_in1k.pth')
    if osp.exists(target) and not args.force:
        print(f'{target} is there already; --force gets it again.')
        return
    facts = SOURCES[args.name][args.source]
    url, sha1 = (args.url, args.sha1) if args.url else (facts.url, facts.sha1)
    try:
        fetch_and_convert(args.name, url, sha1, target)
    except (DownloadError, CheckpointError) as error:
        raise SystemExit(f'get_weights.py: {error}\n' + advise(
            args.name, args.source, target)) from None
    checked = f'SHA-1 {sha1}' if sha1 else 'no checksum is published for it'
    print(f'{target}: {args.name} from {url} ({checked}).')


if __name__ == '__main__':
    main()
