"""The documentation: commands that exist, snippets that run, links that lead
somewhere, and a site that builds without a word."""
import ast
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest
from mmengine.config import Config

from mmfishnet.datasets import draw_coco

ROOT = Path(__file__).resolve().parents[2]
# Configs that a reader writes.
OWN = [f'configs/{name}.py' for name in ('mine', 'cells', 'eurosat', 'nuclei')]
PAGES = [
    ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md',
    *sorted((ROOT / 'docs').glob('*.md'))
]


def blocks(language):
    """(page and line, text) of every block of code in a language."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(rf'^```{language}\n(.*?)^```', text,
                                 re.DOTALL | re.MULTILINE):
            line = text[:match.start()].count('\n') + 1
            found.append(
                pytest.param(match[1], id=f'{page.name}:{line}'))
    return found


def shell(text):
    """The shell commands of a page, one below the other."""
    return '\n'.join(
        re.findall(r'^```(?:shell|bash)\n(.*?)^```',
                   text.replace('\\\n', ' '), re.DOTALL | re.MULTILINE))


def commands():
    """Every command of the documentation that starts a tool of ours."""
    found = {}
    for page in PAGES:
        text = page.read_text().replace('\\\n', ' ')
        for code in [shell(text), *re.findall(r'`([^`\n]+)`', text)]:
            for line in code.splitlines():
                match = re.search(r'(?<![\w/])(tools/[\w/]+\.(?:py|sh))(.*)',
                                  line)
                if match:
                    command = match[0].split('#')[0].strip()
                    found.setdefault(command, page.name)
    return [
        pytest.param(command, id=f'{page}: {command}')
        for command, page in found.items()
    ]


def started(command):
    """The tool in Python that a command starts, and its arguments."""
    try:
        tool, *args = shlex.split(command)
    except ValueError:  # a part of a sentence
        tool, *args = command.split()
    assert (ROOT / tool).is_file()
    if tool.endswith('.sh'):
        kind = 'test' if '_test' in tool else 'train'
        # Processes or, under Slurm, partition, job and work directory.
        at = [0, 0, 1] if 'slurm' in tool else [1 + (kind == 'test')]
        for place in at[:len(args)]:
            del args[place]
        tool = f'tools/{kind}.py'
    return tool.removeprefix('tools/').removesuffix('.py'), args


@pytest.mark.parametrize('command', commands())
def test_commands(command, call_tool, monkeypatch):
    """The tool's own parser takes every word; configs named are there."""
    tool, args = started(command)
    if not args:  # named only
        return
    parse = ArgumentParser.parse_args

    def stop(parser, *given):
        parse(parser, *given)
        raise SystemExit(0)

    monkeypatch.setattr(ArgumentParser, 'parse_args', stop)
    done = call_tool(tool, *args)
    if 'arguments are required: ' in done.stderr:  # in a sentence
        missing = done.stderr.split('required: ')[1].strip().split(', ')
        words = ' '.join(f'{name} X' if name[0] == '-' else 'X'
                         for name in missing)
        done = call_tool(tool, *words.split(), *args)
    assert done.returncode == 0, done.stderr
    for arg in args:
        if arg.startswith('configs/') and arg.endswith('.py'):
            mine = arg in OWN
            assert mine or (ROOT / arg).is_file(), arg


@pytest.mark.parametrize('code', blocks('python'))
def test_python(code, tmp_path, monkeypatch):
    """A snippet is a config, or runs, or says why not in its first line."""
    if code.startswith('# skip: '):
        ast.parse(code)
        return
    monkeypatch.chdir(ROOT)
    if '_base_' in code or 'read_base' in code:
        path = tmp_path / 'config.py'
        path.write_text(code)
        Config.fromfile(path)
    elif 'Inferencer' in code or 'get_model(' in code or ':...' in code:
        ast.parse(code)  # tests of their own run these, with weights
    else:
        exec(compile(code, '<documentation>', 'exec'), {})


def test_links():
    """Links to files and headings of the repository."""
    broken = []
    for page in PAGES:
        text = re.sub(r'^```.*?^```', '', page.read_text(),
                      flags=re.DOTALL | re.MULTILINE)
        for link in re.findall(r'\]\(([^)\s]+)\)', text):
            if re.match(r'[a-z]+:', link):
                continue
            name, _, anchor = link.partition('#')
            target = page if not name else (page.parent / name)
            if not target.exists() and 'generated' not in name:
                broken.append(f'{page.name}: {link}')
            elif anchor and target.suffix == '.md':
                headings = {
                    re.sub(r'[^\w\- ]', '', heading).strip().lower().replace(
                        ' ', '-')
                    for heading in re.findall(r'^#+ (.*)$',
                                              target.read_text(), re.MULTILINE)
                }
                if anchor not in headings:
                    broken.append(f'{page.name}: {link}')
    assert broken == []


def test_project_files():
    """The files that hosts and citation tools read are as they expect."""
    import yaml

    from mmfishnet import __version__
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == __version__
    assert f'## {__version__}' in (ROOT / 'CHANGELOG.md').read_text()
    authors = [a['family-names']
               for a in citation['preferred-citation']['authors']]
    assert authors == ['Sun', 'Pang', 'Shi', 'Yi', 'Ouyang']
    workflow = yaml.safe_load(
        (ROOT / '.github/workflows/checks.yml').read_text())
    targets = workflow['jobs']['run']['strategy']['matrix']['target']
    makefile = (ROOT / 'Makefile').read_text()
    assert all(re.search(rf'^{target}:', makefile, re.MULTILINE)
               for target in targets)
    template = (ROOT / '.github/ISSUE_TEMPLATE/problem.yml').read_text()
    first = yaml.safe_load(template)['body'][0]
    assert 'python -m mmfishnet doctor' in first['attributes']['description']
    assert first['validations']['required']


@pytest.mark.slow
def test_own_data(call_tool, tmp_path, monkeypatch):
    """The tutorial, as it stands, with fewer epochs."""
    lines = shell((ROOT / 'docs/your_own_data.md').read_text()).splitlines()
    draw_coco(tmp_path / 'drawn', train=8, val=2, size=64)
    # The folder that the page shows.
    data = tmp_path / 'data/cells'
    for split in ('train', 'val'):
        for old, new in ((f'{split}2017', split),
                         (f'annotations/instances_{split}2017.json',
                          f'annotations/{split}.json')):
            (data / new).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / 'drawn' / old).rename(data / new)
    (tmp_path / 'more_pictures').symlink_to(data / 'val')
    monkeypatch.chdir(tmp_path)

    before = [line for line in lines if 'tools/dataset_tools' not in line
              and not line.startswith('python tools/')]
    listed = subprocess.run(['bash', '-ec', '\n'.join(before)],
                            capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    assert 'pascal_voc.py' in listed.stdout
    for line in lines:
        if not line.startswith('python tools/'):
            continue
        tool, args = started(line.removeprefix('python '))
        args = [found for arg in args for found in (
            map(str, Path().glob(arg)) if '*' in arg else [arg])]
        if tool == 'train':
            args += ['--cfg-options', 'train_cfg.max_epochs=1']
        done = call_tool(tool, *args)
        assert done.returncode == 0, (line, done.stderr)
    assert list(tmp_path.glob('work_dirs/cells/*/pictures/*.jpg'))
    assert len(list(tmp_path.glob('predicted/**/*.jpg'))) == 2
    page = tmp_path / 'work_dirs/cells/report.html'
    assert 'Worst images' in page.read_text()


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    pytest.importorskip('furo')
    pytest.importorskip('myst_parser')
    folder = tmp_path_factory.mktemp('site')
    # Its own process: Sphinx puts its words for defaults into signatures.
    result = subprocess.run([
        sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-b',
        'html', '-d', folder / 'doctrees', ROOT / 'docs', folder / 'html'
    ], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    return folder / 'html'


@pytest.mark.slow
@pytest.mark.parametrize('width', [390, 1280])
def test_site_fits_the_window(site, widths, width):
    found = widths([*site.rglob('*.html')], width)
    assert len(found) > 15 and set(found.values()) == {width}, found


@pytest.mark.slow
def test_site(site):
    """It was built without a warning, such as of a link that leads nowhere;
    all that a page needs is in it, and all configs are."""
    pages = {page: page.read_text() for page in site.rglob('*.html')}
    assert len(pages) > 15
    for text in pages.values():
        assert not re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="https?:', text)
    zoo = (site / 'generated/model_zoo.html').read_text()
    for config in (ROOT / 'configs').rglob('*.py'):
        if '_base_' not in str(config):
            assert config.name in zoo
