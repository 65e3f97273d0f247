# Copyright (c) mmfishnet authors. All rights reserved.
import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MODULE = """\
# Written by setup.py from configs/{name}.
globals().update(
    __import__('mmfishnet').config_variables('{name}'))
"""


class BuildPy(build_py):
    """Puts configs and tools where MIM and MMEngine look.

    That is ``mmfishnet/.mim``, and for pure-Python configs
    ``mmfishnet/configs``. An editable install gets the former as links, any
    other build gets copies; these go to the build folder, so the source tree
    never holds a stale one.
    """

    def run(self):
        super().run()
        base = ROOT if self.editable_mode else Path(self.build_lib)
        self.put_files(base / 'mmfishnet' / '.mim')
        self.write_modules(base / 'mmfishnet' / 'configs')

    def put_files(self, mim):
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        for name in ('configs', 'tools', 'model-index.yml'):
            source = ROOT / name
            if self.editable_mode:
                (mim / name).symlink_to(os.path.relpath(source, mim))
            elif source.is_dir():
                shutil.copytree(
                    source,
                    mim / name,
                    ignore=shutil.ignore_patterns('__pycache__', '*.py[cod]'))
            else:
                shutil.copy2(source, mim / name)

    def write_modules(self, folder):
        """Write a module for each config; mmfishnet/config.py says why."""
        shutil.rmtree(folder, ignore_errors=True)
        for config in sorted((ROOT / 'configs').rglob('*.py')):
            name = config.relative_to(ROOT / 'configs').as_posix()
            # A module's name has no hyphens.
            module = folder / name.replace('-', '_')
            module.parent.mkdir(parents=True, exist_ok=True)
            module.write_text(MODULE.format(name=name))


def read(name):
    return (ROOT / name).read_text(encoding='utf-8')


def requirements(name):
    lines = read(f'requirements/{name}.txt').splitlines()
    return [line for line in lines if line and line[0] not in '#-']


setup(
    name='mmfishnet',
    version=re.search(r"__version__ = '(.+)'",
                      read('mmfishnet/version.py')).group(1),
    description='FishNet and FishNeXt, backbones for image, region and pixel '
    'level prediction, for MMDetection, MMPretrain, MMSegmentation and timm',
    long_description=read('README.md'),
    long_description_content_type='text/markdown',
    author='mmfishnet authors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='FishNet, backbone, computer vision, object detection, instance '
    'segmentation, semantic segmentation, image classification, OpenMMLab',
    project_urls={
        'Paper': 'https://arxiv.org/abs/1901.03495',
        "Authors' code": 'https://github.com/kevin-ssy/FishNet',
    },
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        *(f'Programming Language :: Python :: 3.{minor}'
          for minor in range(10, 14)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    packages=find_packages(include=['mmfishnet', 'mmfishnet.*']),
    package_data={'mmfishnet': ['**/*.html', 'weights/*']},
    python_requires='>=3.10',
    # Not torch and OpenMMLab's packages: they come in several builds and under
    # several names, and pip must not replace the ones at hand. mmfishnet
    # checks their versions when it is imported.
    install_requires=requirements('runtime'),
    extras_require={
        name: requirements(name)
        for name in ('mminstall', 'docs', 'export', 'extras', 'tests')
    },
    cmdclass={'build_py': BuildPy},
    zip_safe=False)
