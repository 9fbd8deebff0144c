"""Packages that are missing, of other versions or broken are named, with a command."""

import re
import sys
from importlib import metadata

import pytest
import torch
from mmengine.config import Config

from gcp_mm.checks.machine import check_packages, import_error, numpy_error
from gcp_mm.compat import operators_in_use, packages
from gcp_mm.compat.packages import FAMILIES, requirement_of, unmet_requirements
from tests.helpers.checks import findings, texts

NAMES = {family: [first for first, *_ in FAMILIES[family].values()] for family in FAMILIES}
MMCV, MMENGINE, MMDET, MMPRETRAIN = NAMES['mm']
# name: (version, what it requires)
FITTING = {
    'gcp_mm': (
        '1.0',
        [
            'torch>=2.1',
            *(f'{name}<2,>=1; extra == "mm"' for name in NAMES['mm']),
            *(f'{name}<9,>=8; extra == "onedl"' for name in NAMES['onedl']),
        ],
    ),
    **dict.fromkeys(NAMES['mm'], ('1.5', None)),
    'torch': ('2.11.0+cpu', ['numpy']),
    'torchvision': ('0.26.0', ['torch==2.11.0', 'scipy>9; extra == "scipy"']),
    'numpy': ('2.2', None),
    'opencv-python': ('4.12', ['numpy<2; python_version < "3"', 'numpy<2.3,>=2']),
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


@pytest.mark.parametrize('changed', [{}, {MMCV: None, 'mmcv': ('1.5', None)}])
def test_versions_that_fit(install, changed):
    install(**changed)
    assert list(unmet_requirements()) == []
    assert requirement_of('mmcv') == 'mmcv-lite<2,>=1'


@pytest.mark.parametrize(
    ('changed', 'message', 'remedy'),
    [
        ({MMCV: ('2.0', None)}, 'mmcv-lite 2.0 is outside the range', '"mmcv-lite<2,>=1"'),
        ({MMDET: None}, 'mmdet is not installed', '"mmdet<2,>=1"'),
        (
            {'torch': ('2.10.0', None)},
            'torchvision 0.26.0 needs torch==2.11.0, and 2.10.0 is installed',
            '"torch==2.11.0", or another torchvision',
        ),
        (
            {'numpy': ('2.4', None)},
            'opencv-python 4.12 needs numpy<2.3,>=2, and 2.4 is installed',
            '"numpy<2.3,>=2", or another opencv-python',
        ),
        # between packages of the family
        (
            {MMPRETRAIN: ('1.5', [f'{MMCV}>=1.6'])},
            'mmpretrain 1.5 needs mmcv-lite>=1.6, and 1.5 is installed',
            '"mmcv-lite>=1.6", or another mmpretrain',
        ),
        # a compiled mmcv serves as well
        ({MMCV: None, 'mmcv': ('2.0', None)}, 'mmcv 2.0 is outside', '"mmcv<2,>=1"'),
    ],
)
def test_versions_that_do_not(install, changed, message, remedy):
    install(**changed)
    (text,) = unmet_requirements()
    assert text.startswith(message)
    assert text.endswith(f': pip install {remedy}')


def test_mmdet_is_for_detectors(install):
    install(**{MMDET: None})
    assert list(unmet_requirements(optional=('mmdet',))) == []
    assert findings(check_packages, Config(dict(default_scope='mmpretrain')))[0].status == 'ok'
    assert findings(check_packages, Config(dict(default_scope='mmdet')))[0].status == 'warning'


def test_gcp_mm_that_is_not_installed(install):
    """As from a checkout on PYTHONPATH: its ranges are not known, those of others are."""
    install(gcp_mm=None, numpy=('2.4', None))
    assert len(list(unmet_requirements())) == 1
    assert requirement_of('mmcv') == MMCV


def test_this_environment():
    for scope in ('mmpretrain', 'mmdet'):
        (found,) = findings(check_packages, Config(dict(default_scope=scope)))
        assert found.status == 'ok'
        assert f'torch {torch.__version__.split("+")[0]}' in found.text


def test_mismatch_is_a_warning(install):
    install(numpy=('2.4', None))
    warning, versions = findings(check_packages, Config(dict()))
    assert warning.status == 'warning'
    assert f'operators of mmcv: {operators_in_use()}' in versions.text


@pytest.mark.parametrize(
    ('scope', 'module', 'remedy'),
    [
        ('mmpretrain', 'torchvision', 'it has to be the one for torch'),
        ('mmdet', 'mmcv.ops', 'pip uninstall .* without compiled operators'),
        ('mmdet', 'mmdet', 'pip install "'),
        ('mmpretrain', 'mmpretrain', 'pip install "'),
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
    name = packages.distribution_of('mmcv')
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
