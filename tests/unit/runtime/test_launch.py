"""Configs that are no run of mmengine's Runner are refused; a run on CPUs keeps its wrapper."""

from importlib import import_module

import pytest

from gcp_mm.runtime import launch, load_config
from tests.helpers.runs import CLS, ROOT


@pytest.mark.parametrize('kind', ['FlexibleRunner', 'Runer'])
def test_another_runner_is_refused(kind):
    with pytest.raises(ValueError, match=f"runner_type='{kind}': only 'Runner'"):
        load_config(str(ROOT / CLS), dict(runner_type=kind))


def test_settings_of_the_wrapper_stay_on_a_cpu(monkeypatch):
    seen, module = [], import_module('gcp_mm.runtime.launch')
    monkeypatch.setattr(module.dist, 'init_process_group', lambda *_, **__: None)
    monkeypatch.setattr(module.QuietRunner, 'from_cfg', seen.append)
    monkeypatch.setattr(module, 'get_device', lambda: 'cpu')
    cfg = load_config(str(ROOT / CLS), launcher='pytorch')
    cfg.model_wrapper_cfg = dict(type='MMFullyShardedDataParallel')
    with pytest.raises(ValueError, match=r"model_wrapper_cfg.type='MMFully.*leave it out"):
        launch(cfg, lambda runner: None)
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', static_graph=True)
    with pytest.raises(AttributeError, match='register_hook'):  # there is no Runner
        launch(cfg, lambda runner: None)
    (found,) = seen
    assert found.model_wrapper_cfg.static_graph
    assert found.model_wrapper_cfg.device_ids is None
    assert not found.model_wrapper_cfg.broadcast_buffers
