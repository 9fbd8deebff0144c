"""The package in processes of its own: imported, as a launcher of scripts, and as a wheel."""

import sys
import zipfile
from pathlib import Path

from gcp_mm.hub import CONFIGS
from tests.helpers.runs import ROOT


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


def test_installed_package_has_the_configs(run_tool, tmp_path):
    command = ['-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', tmp_path]
    done = run_tool(sys.executable, *command, ROOT)
    assert done.returncode == 0, done.stdout
    (wheel,) = tmp_path.glob('*.whl')
    files = {
        name for name in zipfile.ZipFile(wheel).namelist() if name.startswith('gcp_mm/configs')
    }
    paths = [path for path in CONFIGS.rglob('*') if path.suffix in ('.py', '.yml')]
    assert files == {str(Path('gcp_mm/configs', path.relative_to(CONFIGS))) for path in paths}
