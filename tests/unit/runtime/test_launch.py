"""Configs that are no run of mmengine's Runner are refused."""

import pytest

from gcp_mm.runtime import launch, load_config
from tests.helpers.runs import CLS, ROOT


@pytest.mark.parametrize('kind', ['FlexibleRunner', 'Runer'])
def test_another_runner_is_refused(kind):
    path, cfg = str(ROOT / CLS), load_config(str(ROOT / CLS), dict(runner_type='Runner'))
    cfg.runner_type = kind
    with pytest.raises(ValueError, match=f"runner_type='{kind}': only 'Runner'"):
        launch(cfg, pytest.fail)
    with pytest.raises(ValueError, match=f"runner_type='{kind}'"):
        load_config(path, dict(runner_type=kind))
