"""Configs of methods after the paper: a step of training."""

import pytest
import torch
from mmpretrain.structures import DataSample

from tests.helpers.configs import CONFIGS, build_model, load

OWN = [path for path in CONFIGS if path.startswith('configs/second_order/')]


@pytest.mark.parametrize('path', OWN)
def test_trains_a_step(path):
    cfg = load(path)
    cfg.model.head.num_classes = 3
    cfg.model.head.pop('topk', None)
    size = 64
    if '/vit' in path or '/deit' in path or '/sot' in path:
        cfg.model.backbone.update(arch='deit-t', img_size=size)
        cfg.model.head.in_channels = 192
    elif 'swin' in path:  # windows that fit, and a block of each stage
        cfg.model.backbone.update(img_size=size, window_size=2)
        cfg.model.backbone.arch = dict(embed_dims=96, depths=[1, 2, 1, 1], num_heads=[3, 6, 12, 24])
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
