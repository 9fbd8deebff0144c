"""Packages that are missing, of other versions or broken are named, with a command."""

import re
import sys
from importlib import metadata

import pytest
import torch
from mmengine.config import Config

from gcp_mm.checks.machine import check_packages, import_error, numpy_error
from gcp_mm.compat import operators_in_use, packages
from gcp_mm.compat.packages import (
    FAMILIES,
    installed_family,
    installed_version,
    unmet_requirements,
)
from tests.helpers.checks import findings, texts

MMCV, MMENGINE, MMDET, MMPRETRAIN = [first for first, *_ in FAMILIES['mm'].values()]
ONEDL = [first for first, *_ in FAMILIES['onedl'].values()]
# name: (version, what it requires)
FITTING = {
    'gcp_mm': (
        '1.0',
        [
            'torch>=2.1',
            *(f'{name}<2,>=1; extra == "mm"' for name in (MMCV, MMENGINE, MMDET, MMPRETRAIN)),
            *(f'{name}<9,>=8; extra == "onedl"' for name in ONEDL),
        ],
    ),
    **dict.fromkeys((MMCV, MMENGINE, MMDET, MMPRETRAIN), ('1.5', None)),
    'torch': ('2.11.0+cpu', None),
}


@pytest.fixture
def install(monkeypatch):
    """Pretend that these packages are installed, {name: (version, requirements)}, and no others."""
    import mmdet  # noqa: F401
    import mmpretrain  # noqa: F401  those of the fork ask for their versions at the first import

    def install(**changed):
        there = {name: p for name, p in {**FITTING, **changed}.items() if p is not None}

        def look_up(name):
            if name not in there:
                raise metadata.PackageNotFoundError(name)
            return there[name]

        monkeypatch.setattr(packages.metadata, 'version', lambda name: look_up(name)[0])
        monkeypatch.setattr(packages.metadata, 'requires', lambda name: look_up(name)[1])

    return install


@pytest.mark.parametrize(
    'changed',
    [
        {},
        {MMCV: None, 'mmcv': ('1.5', None)},  # compiled
        {MMDET: None},  # for detectors
        {'gcp_mm': None, MMCV: ('2.0', None)},  # a checkout on PYTHONPATH, whose ranges nobody has
    ],
)
def test_versions_that_fit(install, changed):
    install(**changed)
    assert list(unmet_requirements()) == []


@pytest.mark.parametrize(
    ('changed', 'message', 'remedy'),
    [
        ({MMCV: ('2.0', None)}, 'mmcv-lite 2.0 is outside the range', '"mmcv-lite<2,>=1"'),
        ({MMPRETRAIN: None}, 'mmpretrain is not installed', '"mmpretrain<2,>=1"'),
        # a compiled mmcv serves as well
        ({MMCV: None, 'mmcv': ('2.0', None)}, 'mmcv 2.0 is outside', '"mmcv<2,>=1"'),
    ],
)
def test_versions_that_do_not(install, changed, message, remedy):
    install(**changed)
    (text,) = unmet_requirements()
    assert text.startswith(message)
    assert text.endswith(f': pip install {remedy}')


def test_this_environment():
    for scope in ('mmpretrain', 'mmdet'):
        (found,) = findings(check_packages, Config(dict(default_scope=scope)))
        assert found.status == 'ok'
        assert f'torch {torch.__version__.split("+")[0]}' in found.text


def test_mismatch_is_a_warning(install):
    install(torch=('2.0', None))
    warning, versions = findings(check_packages, Config(dict()))
    assert warning.status == 'warning'
    assert f'operators of mmcv: {operators_in_use()}' in versions.text


@pytest.mark.parametrize(
    ('scope', 'module', 'remedy'),
    [
        ('mmpretrain', 'torchvision', 'it has to be the one for torch'),
        ('mmdet', 'mmcv.ops', 'pip uninstall mmcv-lite mmcv onedl-mmcv and .* without'),
        ('mmdet', 'mmdet', r'pip install "gcp_mm\['),
        ('mmpretrain', 'mmpretrain', r'pip install "gcp_mm\['),
    ],
)
def test_packages_that_do_not_load(monkeypatch, scope, module, remedy):
    monkeypatch.setitem(sys.modules, module, None)  # importing it raises ImportError
    (text,) = texts('error', check_packages, Config(dict(default_scope=scope)))
    assert re.match(f'{module} cannot be imported .*{remedy}', text)


def test_classifiers_do_not_need_compiled_operators(monkeypatch):
    for module in ('mmcv.ops', 'mmdet'):
        monkeypatch.setitem(sys.modules, module, None)
    assert findings(check_packages, Config(dict(default_scope='mmpretrain')))[0].status != 'error'


def test_whatever_a_broken_package_raises(monkeypatch, tmp_path):
    text = 'operator torchvision::nms does not exist'
    (tmp_path / 'broken_vision.py').write_text(f'raise RuntimeError({text!r})')
    monkeypatch.syspath_prepend(tmp_path)
    assert f'(RuntimeError: {text}); mend it' in import_error('broken_vision', 'mend it')


def test_torch_of_another_numpy(monkeypatch):
    def from_numpy(_):
        raise RuntimeError('Numpy is not available')

    assert numpy_error() == ''
    monkeypatch.setattr(torch, 'from_numpy', from_numpy)
    assert 'Numpy is not available): pip install "numpy<2"' in numpy_error()


def test_import_of_gcp_mm_says_why(run_tool, tmp_path):
    """A family's package that does not load, of another version than gcp_mm is tested with."""
    name = next(filter(installed_version, FAMILIES[installed_family()]['mmcv']))
    (tmp_path / 'mmcv.py').write_text("raise ImportError('undefined symbol: _ZN3c10')")
    info = tmp_path / f'{name.replace("-", "_")}-0.1.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n')
    done = run_tool(sys.executable, '-c', 'import gcp_mm', PYTHONPATH=f'{tmp_path}:.')
    assert done.returncode == 1
    assert 'undefined symbol: _ZN3c10\n' in done.stdout
    assert f'{name} 0.1 is outside the range that gcp_mm is tested with: pip' in done.stdout


def test_import_of_gcp_mm_needs_no_torchvision(run_tool):
    """So that the check of the packages can say what is wrong with it."""
    code = "import sys; sys.modules['torchvision'] = None; import gcp_mm"
    assert run_tool(sys.executable, '-c', code).returncode == 0
