"""Configs of methods after the paper: parameters as their README says, and a step of training."""

import re
from pathlib import Path

import pytest
import torch
from mmpretrain.structures import DataSample

from tests.helpers.configs import CONFIGS, build_model, count_parameters, load, outline
from tests.helpers.runs import ROOT

OWN = [path for path in CONFIGS if path.startswith('configs/second_order/')]
README = (ROOT / 'configs/second_order/README.md').read_text()
ROWS = {
    name: (int(gpus), parameters)
    for name, gpus, parameters in re.findall(r'^\| (\S+) \| (\d+) \| ([^|]+) \|', README, re.M)
}


def test_readme_has_every_config():
    assert sorted(ROWS) == sorted(Path(path).stem for path in OWN)


@pytest.mark.parametrize('path', OWN)
def test_gpus_and_parameters_of_the_readme(path):
    gpus, parameters = ROWS[Path(path).stem]
    processes, batch = map(int, re.search(r'_(\d+)xb(\d+)', path).groups())
    assert gpus == processes
    assert load(path).train_dataloader.batch_size == batch
    count = count_parameters(path)
    if parameters.endswith('trained'):
        count = sum(p.numel() for p in outline(path).parameters() if p.requires_grad)
    assert f'{count / 1e6:.2f}' == parameters.split()[0]


@pytest.mark.parametrize('path', OWN)
def test_trains_a_step(path):
    cfg = load(path)
    cfg.model.head.num_classes = 3
    cfg.model.head.pop('topk', None)
    size = 64
    if '/vit' in path or '/deit' in path or '/sot' in path:
        cfg.model.backbone.update(arch='deit-t', img_size=size)
        cfg.model.head.in_channels = 192
    elif 'swin' in path:
        size = 224  # its windows
    else:
        cfg.model.backbone.depth = 18
        cfg.model.neck.in_channels = 512
    for part in (cfg.model.neck, cfg.model.head) if cfg.model.get('neck') else ():
        part.pop('init_cfg', None)
    if cfg.data_preprocessor is not None:
        cfg.data_preprocessor.num_classes = 3
    model = build_model(cfg).train()
    batch = dict(
        inputs=[torch.randint(0, 256, (3, size, size), dtype=torch.uint8) for _ in range(2)],
        data_samples=[DataSample().set_gt_label(i) for i in range(2)],
    )
    data = model.data_preprocessor(batch, training=True)
    sum(model(**data, mode='loss').values()).backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert any(p.grad.abs().sum() > 0 for p in model.head.parameters())
