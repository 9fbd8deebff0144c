"""Configs that are no run of mmengine's Runner are refused."""

import pytest

from gcp_mm.runtime import load_config
from tests.helpers.runs import CLS, ROOT


@pytest.mark.parametrize('kind', ['FlexibleRunner', 'Runer'])
def test_another_runner_is_refused(kind):
    with pytest.raises(ValueError, match=f"runner_type='{kind}': only 'Runner'"):
        load_config(str(ROOT / CLS), dict(runner_type=kind))
