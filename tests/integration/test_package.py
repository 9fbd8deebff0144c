"""The package in processes of its own: imported, as a launcher of scripts, and as a wheel."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from gcp_mm import __version__, list_models
from gcp_mm.hub import CONFIGS
from tests.helpers.runs import CLS, ROOT

# Of the repository, what its sdist holds
SOURCES = [
    *('.github', 'configs', 'docs', 'gcp_mm', 'requirements', 'tests', 'tools'),
    *('.pre-commit-config.yaml', 'CHANGELOG.md', 'CITATION.cff', 'CONTRIBUTING.md', 'LICENSE'),
    *('MANIFEST.in', 'Makefile', 'README.md', 'model-index.yml', 'pyproject.toml', 'setup.py'),
]
# As a user of the wheel would write it
OUTSIDE = """
import sys
import gcp_mm
from gcp_mm.recipes import write_config
from mmengine.config import Config
from mmengine.runner import Runner

packages, digits = sys.argv[1:]
assert gcp_mm.get_model('mask-rcnn_r18-gcp-m_fpn_4e_digits').backbone.conv5 == 'maxpool'
cfg = Config.fromfile('mine.py')
for split in ('train', 'val', 'test'):
    loader = cfg[f'{split}_dataloader']
    loader.batch_size, loader.num_workers = 8, 0
    loader.dataset.update(data_root=digits, indices=8)
cfg.train_dataloader.dataset.pipeline[1].crop_size = 32
cfg.train_cfg.max_epochs = cfg.param_scheduler.end = 1
cfg.work_dir = 'work_dir'
runner = Runner.from_cfg(cfg)
runner.train()
assert runner.iter == 1 and runner.optim_wrapper.optimizer.state
(own, *_), _ = write_config(digits, 'classify', 'own.py')
assert Config.fromfile(own).train_dataloader.sampler.shuffle
gcp_mm.checkpoints.read_checkpoint('work_dir/epoch_1.pth')
files = [m.__file__ for name, m in sys.modules.items() if name.split('.')[0] == 'gcp_mm']
assert files and all(file.startswith(packages) for file in files), files
print(*gcp_mm.list_models())
"""


def test_importing_the_package_imports_no_detector_and_no_compiled_operator(run_tool):
    code = (
        'import sys, gcp_mm; from mmengine.registry import MODELS; '
        'assert {"GlobalCovariancePooling", *gcp_mm.models.SUBCLASSES} <= set(MODELS.module_dict); '
        'print([m for m in sys.modules if m.split(".")[0] == "mmdet" or m.startswith("mmcv.ops")])'
    )
    done = run_tool(sys.executable, '-c', code)
    assert done.stdout.endswith('[]\n'), done.stdout


def test_main_runs_a_script(run_tool, tmp_path):
    (tmp_path / 'sibling.py').write_text('word = "imported"')
    script = 'import sys, mmcv.ops, sibling\nprint(__name__, sys.argv[1:], sibling.word)'
    (tmp_path / 'script.py').write_text(script)
    done = run_tool(sys.executable, '-m', 'gcp_mm', tmp_path / 'script.py', '--flag')
    assert done.stdout.endswith("__main__ ['--flag'] imported\n")


def build(source, out):
    """The wheel of a folder or an sdist, and the names of its files."""
    command = ['-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', out, source]
    subprocess.run([sys.executable, *map(str, command)], check=True)
    (wheel,) = out.glob('*.whl')
    return wheel, set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    """A copy of the repository, for a build takes in what an earlier one has left; its files."""
    folder = tmp_path_factory.mktemp('checkout') / 'gcp_mm'
    folder.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns('__pycache__', '_build', '_generated')
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    return folder, {path.relative_to(folder) for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def wheel(checkout, tmp_path_factory):
    return build(checkout[0], tmp_path_factory.mktemp('wheel'))


def test_wheel_has_the_configs_and_the_data(wheel):
    files = {Path(name) for name in wheel[1]}
    paths = [path for path in CONFIGS.rglob('*') if path.suffix in ('.py', '.yml')]
    configs = {Path('gcp_mm/configs', path.relative_to(CONFIGS)) for path in paths}
    assert {file for file in files if file.is_relative_to('gcp_mm/configs')} == configs
    own = ROOT / 'gcp_mm'
    paths = [path for path in own.rglob('*.*') if '__pycache__' not in path.parts]
    package = {Path('gcp_mm', path.relative_to(own)) for path in paths}
    metadata = {file for file in files if file.parts[0] == f'gcp_mm-{__version__}.dist-info'}
    assert Path('gcp_mm/py.typed') in package
    assert files == configs | package | metadata


@pytest.mark.slow
def test_sdist_has_the_repository_and_makes_the_same_wheel(checkout, wheel, tmp_path):
    code = f'from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})'
    folder, sources = checkout
    subprocess.run([sys.executable, '-c', code], cwd=folder, check=True)
    (sdist,) = tmp_path.glob('gcp_mm-*.tar.gz')
    with tarfile.open(sdist) as archive:
        files = {Path(*Path(name).parts[1:]) for name in archive.getnames()}
    assert sources <= files
    assert build(sdist, tmp_path)[1] == wheel[1]


@pytest.mark.slow
def test_wheel_trains_outside_the_checkout(wheel, digits, tmp_path):
    """The names of models, configs that inherit the wheel's, and a step of training."""
    target = tmp_path / 'packages'
    command = ['-m', 'pip', 'install', '-q', '--no-deps', '--target', target, wheel[0]]
    subprocess.run([sys.executable, *map(str, command)], check=True)
    (tmp_path / 'mine.py').write_text(f'_base_ = "gcp_mm::{Path(CLS).relative_to("configs")}"')
    (tmp_path / 'script.py').write_text(OUTSIDE)
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(target)}
    command = [sys.executable, 'script.py', str(target), str(digits)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, text=True, stdout=-1, stderr=-2, timeout=300
    )
    assert done.returncode == 0, done.stdout
    *_, names = done.stdout.splitlines()
    assert names.split() == list_models()
