"""Laws of the package that import-linter cannot hold."""

import copy

import torch
from mmengine.config import Config, config
from mmengine.fileio.handlers import file_handlers
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from yapf.yapflib import yapf_api

from gcp_mm.checkpoints import check_checkpoint_file, read_checkpoint
from gcp_mm.runtime import load_config, read_config
from tests.helpers.runs import CLS, ROOT


def readers():
    return (
        copy.copy(CheckpointLoader._schemes),
        copy.copy(file_handlers),
        DefaultScope._instance_dict.copy(),
    )


def test_reading_changes_nothing_global(tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict={}), path)
    before = readers()
    read_config(str(ROOT / CLS))
    load_config(str(ROOT / CLS), work_dir=str(tmp_path))
    check_checkpoint_file(path)
    read_checkpoint(path)
    assert readers() == before


def test_mmengine_lays_configs_out_by_what_the_tests_replace(monkeypatch):
    """See :mod:`tests.helpers.quick`."""
    for module in (config, yapf_api):
        monkeypatch.setattr(module, 'FormatCode', lambda text, **style: ('replaced', True))
    assert Config(dict(a=1)).pretty_text == 'replaced'
