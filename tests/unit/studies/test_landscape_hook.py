"""Arguments of the hook, and the configs of the paper's Figure 2."""

import re
from pathlib import Path

import pytest
from mmengine.config import ConfigDict
from mmengine.registry import HOOKS, init_default_scope
from torch import nn

from gcp_mm.studies import LandscapeHook
from tests.helpers.configs import CONFIGS, load, outline


@pytest.mark.parametrize(
    ('options', 'error', 'words'),
    [
        (dict(interval=0), ValueError, 'interval: .* 1, got 0'),
        (dict(interval=1.5), TypeError, r'interval: .* got 1\.5'),
        (dict(num_points=1), ValueError, 'num_points: .* 2, got 1'),
        (dict(eta_range=(75, 0.1)), ValueError, r'eta_range: .* got \(75, 0\.1\)'),
        (dict(eta_range=(0, float('inf'))), ValueError, 'eta_range'),
    ],
)
def test_wrong_arguments(options, error, words):
    with pytest.raises(error, match=words):
        LandscapeHook(**{**dict(interval=5, eta_range=(0.1, 75)), **options})


def test_etas_are_evenly_spaced():
    etas = LandscapeHook(500, ConfigDict(r=(0.1, 75)).r).etas
    assert len(etas) == 50
    assert etas == pytest.approx([0.1 + k * 74.9 / 49 for k in range(50)], rel=1e-12)


FIGURE_2 = {
    'resnet18': dict(steps=100_000, interval=500, etas=(0.1, 75), batch=256, stem='maxpool'),
    'mobilenet-v2': dict(steps=500_000, interval=1000, etas=(0.045, 1.5), batch=96, stem='conv1'),
}


@pytest.mark.parametrize('path', [p for p in CONFIGS if re.match(r'.*/landscape/.*_in1k\.py', p)])
def test_configs_are_those_of_figure_2(path):
    """Section 3.2 and appendix I of the paper."""
    name = Path(path).name
    net, gpus, batch = re.match(r'(\w.*?)(?:-gcp)?_(\d+)xb(\d+)-landscape_', name).groups()
    paper = FIGURE_2[net]
    cfg = load(path)
    assert int(gpus) * int(batch) == cfg.auto_scale_lr.base_batch_size == paper['batch']
    assert cfg.train_dataloader.batch_size == int(batch)
    steps = -(-1_281_167 // paper['batch'])  # of an epoch of ImageNet
    assert (cfg.train_cfg.max_epochs - 1) * steps < paper['steps']
    assert cfg.train_cfg.max_epochs * steps >= paper['steps']
    init_default_scope(cfg.default_scope)
    hook = HOOKS.build(cfg.default_hooks.landscape)
    assert hook.interval == paper['interval']
    assert (hook.etas[0], hook.etas[-1], len(hook.etas)) == (*paper['etas'], 50)
    model = outline(path)
    assert hook.stem == f'backbone.{paper["stem"]}'
    model.get_submodule(hook.stem)
    assert not [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p > 0]
