"""What a type checker sees of the package, in another project."""

import pytest

from tests.helpers.runs import ROOT

USER = """
from gcp_mm.models import GCPResNet, GlobalCovariancePooling
from gcp_mm.ops import GlobalCovariancePool2d
import gcp_mm

def widen(backbone: GCPResNet, neck: GlobalCovariancePooling) -> int:
    return neck.out_channels

reveal_type(GlobalCovariancePool2d(8).out_channels)
GlobalCovariancePool2d('8')
gcp_mm.nonsense
"""


@pytest.mark.slow
def test_users_code_is_checked(tmp_path, monkeypatch):
    api = pytest.importorskip('mypy.api')
    monkeypatch.setenv('MYPYPATH', str(ROOT))
    path = tmp_path / 'user.py'
    path.write_text(USER)
    config = ['--config-file=', '--ignore-missing-imports', '--follow-imports=silent']
    out, errors, _ = api.run([*config, str(path)])
    assert not errors
    lines = [line.split(':', 2)[1:] for line in out.splitlines() if line.startswith(str(path))]
    assert [int(number) for number, _ in lines] == [9, 10, 11], out
    assert 'Revealed type is "' in lines[0][1]
    assert 'int"' in lines[0][1]
    assert 'incompatible type "str"' in lines[1][1]
    assert 'has no attribute "nonsense"' in lines[2][1]
