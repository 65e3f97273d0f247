# Copyright (c) mmfishnet authors. All rights reserved.
"""Sphinx's configuration. `make docs` builds the site, with no network."""
import ast
import re
import sys
from pathlib import Path

import yaml
from mmengine.config import Config

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
GENERATED = DOCS / 'generated'
sys.path[:0] = [str(ROOT), str(ROOT / 'tools/analysis_tools')]

from direct_paths import find_direct_paths  # noqa: E402
from fish_picture import draw_fish  # noqa: E402
from networks import find_network  # noqa: E402

project = 'mmfishnet'
author = 'mmfishnet authors'
copyright = author
release = re.search(r"__version__ = '(.+)'",
                    (ROOT / 'mmfishnet/version.py').read_text()).group(1)

extensions = [
    'myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon',
    'sphinx.ext.viewcode'
]
exclude_patterns = ['build']
html_theme = 'furo'
html_title = f'mmfishnet {release}'
html_static_path = ['static']
html_css_files = ['site.css']
html_copy_source = False

myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 4
# Long tables and commands scroll by themselves at phone width: site.css.

autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # the docstrings say them
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_use_ivar = True
add_module_names = False


def _summary(path: Path) -> str:
    """The comment at the head of a config."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith('#'):
            break
        lines.append(line.lstrip('# '))
    return ' '.join(lines)


def _bases(path: Path) -> list[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_':
            try:
                value = ast.literal_eval(node.value)
            except ValueError:  # an expression
                return []
            return [value] if isinstance(value, str) else list(value)
    return []


def _results(model: dict) -> str:
    values = [
        f'{name} {value}' for result in model.get('Results', ())
        for name, value in result['Metrics'].items()
    ]
    return ', '.join(values)


def write_model_zoo() -> None:
    """Write a page with every config: what it trains, and the paper's AP."""
    meta = yaml.safe_load((ROOT / 'configs/metafile.yml').read_text())
    known = {model['Config']: model for model in meta['Models']}
    sections = {}
    for path in sorted((ROOT / 'configs').rglob('*.py')):
        name = path.relative_to(ROOT).as_posix()
        if '/_base_/' not in name:
            folder = path.parent.relative_to(ROOT / 'configs').as_posix()
            sections.setdefault(folder, []).append((name, path))
    lines = [
        '# Model zoo', '',
        'Every config, generated from the files. **Numbers in the last column '
        "are the authors' and the paper's; none was trained by us.** What we "
        'measured ourselves is in [Benchmarks](../benchmarks.md); what the '
        'default weights are worth beside ResNet, by one evaluation for all, '
        'in [Weights](../weights.md#what-they-are-worth).', ''
    ]
    titles = {'.': 'Detection on COCO', 'classification': 'Classification'}
    for folder in sorted(sections, key=lambda f: (f != '.', f)):
        lines += [
            f'## {titles.get(folder, folder.capitalize())}', '',
            '| Config | Epochs | Parameters | Published |', '|---|---|---|---|'
        ]
        notes = []
        for name, path in sections[folder]:
            cfg = Config.fromfile(path)
            model = known.get(name, {})
            parameters = model.get('Metadata', {}).get('Parameters')
            epochs = (cfg.get('train_cfg') or {}).get('max_epochs', '')
            lines.append(f'| [`{path.name}`](../../{name}) | {epochs} | '
                         f'{f"{parameters / 1e6:.2f} M" if parameters else ""}'
                         f' | {_results(model)} |')
            if _summary(path):
                notes.append(f'- `{path.name}`: {_summary(path)}')
        lines += ['', *notes, '']
    GENERATED.mkdir(exist_ok=True)
    (GENERATED / 'model_zoo.md').write_text('\n'.join(lines))


def write_contributing() -> None:
    """CONTRIBUTING.md, with its links as seen from docs/generated."""
    text = (ROOT / 'CONTRIBUTING.md').read_text()
    text = re.sub(r'\]\((?!https?:|#)(docs/)?',
                  lambda m: f']({"../" if m[1] else "../../"}', text)
    GENERATED.mkdir(exist_ok=True)
    (GENERATED / 'contributing.md').write_text(text)


def write_diagrams() -> None:
    """The fish of each released depth, drawn from autograd's graph."""
    for name in ('fishnet99', 'fishnet150', 'fishnet201'):
        network = find_network(name)
        backbone = network.backbone()
        draw_fish(backbone, find_direct_paths(backbone),
                  GENERATED / f'{name}.svg', network.title)


def link_to_generated(app, name, source) -> None:
    """On a page of the repository CONTRIBUTING.md is a file, here a page."""
    source[0] = source[0].replace('](../CONTRIBUTING.md',
                                  '](generated/contributing.md')


def setup(app):
    app.connect('source-read', link_to_generated)
    write_model_zoo()
    write_contributing()
    write_diagrams()
