"""Shared by the tests: small data in the real layout, and a way to run tools."""

import gc
import runpy
import shutil
import sys

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from gcp_mm.data.digit_scenes import write_scenes
from gcp_mm.data.digits import write_classification
from tests.helpers.quick import make_quick
from tests.helpers.runs import DRAWING, NARROW, ROOT, Training, finish, fork, start


def pytest_addoption(parser):
    parser.addoption(
        '--tables', action='store_true', help='print what tests recorded as rows of tables'
    )


def pytest_terminal_summary(terminalreporter, config):
    """Print a Markdown table of each name under which `record_property(name, {column: value})`."""
    if not config.getoption('--tables'):
        return
    reports = [
        report
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, 'when', None) == 'call'
    ]
    tables = {}
    for report in sorted(reports, key=lambda report: report.location[:2]):
        for name, row in report.user_properties:
            tables.setdefault(name, []).append(row)
    for name, rows in tables.items():
        terminalreporter.section(name)
        lines = [list(rows[0]), ['---'] * len(rows[0]), *(row.values() for row in rows)]
        for line in lines:
            terminalreporter.line(f'| {" | ".join(map(str, line))} |')


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    make_quick()


@pytest.fixture(autouse=True)
def _default_scope():
    """Forget the default scope that a test sets for the process, as `init_detector` does."""
    before = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture(autouse=True)
def _visualizers():
    """Forget those of a test: they write to its folder, and a run in the same second finds them."""
    yield
    kinds = [Visualizer]
    while kinds:
        kind = kinds.pop()
        kind._instance_dict.clear()
        kinds += kind.__subclasses__()


@pytest.fixture(scope='session')
def digits(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'digits'
    write_classification(root, image_size=32)
    return root


@pytest.fixture(scope='session')
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'digits_coco'
    write_scenes(root, scene_size=96, train_scenes=4, val_scenes=2)
    return root


@pytest.fixture(scope='session')
def short_cls(digits):
    """Options that make a digits classification run a matter of seconds."""
    crop = 'train_dataloader.dataset.pipeline.1.crop_size'
    loaders = [
        f'{split}_dataloader.{key}'
        for split in ('train', 'val', 'test')
        for key in (f'dataset.data_root={digits}', 'dataset.indices=16', 'num_workers=0')
    ]
    return [
        *(*loaders, f'{crop}=32', 'train_dataloader.batch_size=8', 'train_cfg.max_epochs=1'),
        *('param_scheduler.end=1', 'default_hooks.checkpoint.save_optimizer=False'),
    ]


@pytest.fixture(scope='session')
def run_tool():
    """Run a command in the project's root; returns the finished process, output in `.stdout`.

    A Python script is forked from a process that has imported the packages, which saves seconds,
    unless the environment is to be another.
    """

    def run(*command, timeout=600, **environment):
        if str(command[0]).endswith('.py') and not environment:
            return fork(*command, timeout=timeout)
        return finish(start(*command, **environment), timeout)

    return run


@pytest.fixture(scope='session')
def narrow_cls(short_cls):
    """Three epochs of a narrow classifier that draws random numbers wherever one can."""
    indices = str(list(range(0, 1440, 90))).replace(' ', '')  # images of all classes
    options = [
        *(option for option in short_cls if 'save_optimizer' not in option),
        *(f'train_dataloader.dataset.indices={indices}', 'train_cfg.max_epochs=3'),
        *('param_scheduler.end=3', 'default_hooks.logger.interval=1'),
        *(f'{key}={value}' for key, value in NARROW.items()),
    ]
    return Training(DRAWING, options, epochs=3)


@pytest.fixture(scope='session')
def call_tool():
    """Call a tool's main() in this process, which spares seconds of imports."""

    def call(tool, *arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, 'argv', [str(tool), *map(str, arguments)])
            runpy.run_path(str(ROOT / tool))['main']()

    return call


@pytest.fixture
def short_patience(monkeypatch):
    """After an error PyTorch waits 5 seconds for each worker, and then ends it."""
    monkeypatch.setattr(torch.utils.data._utils, 'MP_STATUS_CHECK_INTERVAL', 0.1)
    yield
    gc.collect()  # of dataloaders, while that holds


@pytest.fixture
def log(tmp_path):
    """Reads what was logged, by workers too."""
    path = tmp_path / 'test.log'
    MMLogger.get_instance(str(tmp_path), log_file=str(path))
    return path.read_text


@pytest.fixture
def few_digits(digits, tmp_path):
    """Four images of each of the ten classes."""
    for split in ('train', 'val'):
        for folder in sorted((digits / split).iterdir()):
            if folder.is_dir():
                target = tmp_path / split / folder.name
                target.mkdir(parents=True)
                for file in sorted(folder.iterdir())[:4]:
                    shutil.copy(file, target)
    return tmp_path
