"""The installer refuses what it cannot do before it downloads or deletes anything."""

import runpy
import sys

import pytest

from .conftest import ROOT

INSTALL = runpy.run_path(str(ROOT / 'tools/install.py'))


def test_a_folder_that_is_no_environment_is_kept(run_tool, tmp_path):
    (tmp_path / 'precious.txt').touch()
    done = run_tool('tools/install.py', '--venv', tmp_path)
    assert done.returncode != 0
    assert f'{tmp_path} exists and is no virtual environment' in done.stdout
    assert (tmp_path / 'precious.txt').exists()


@pytest.mark.parametrize(('family', 'newest'), INSTALL['NEWEST_PYTHON'].items())
def test_other_pythons_are_refused(family, newest, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['install.py', '--family', family, '--venv', str(tmp_path)])
    for version in ((3, 9, 1), (newest[0], newest[1] + 1, 0)):
        monkeypatch.setattr(sys, 'version_info', version)
        with pytest.raises(SystemExit, match=f'{family} family needs Python 3.10 to 3.{newest[1]}'):
            INSTALL['main']()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('family', INSTALL['MMCV'])
def test_every_package_of_a_family_is_pinned(family, tmp_path):
    from gcp_mm.families import FAMILIES

    installer = INSTALL['Installer'](family, tmp_path)
    pinned = {installer.mmcv.split('==')[0], *installer.others}
    assert pinned == set(FAMILIES[family])
