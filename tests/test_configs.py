"""Every config builds; those for ImageNet and COCO run and take a step."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, init_default_scope

from gcp_mm.engine.preflight import check_head

from .conftest import ROOT

CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / 'configs').glob('*/*.py')
    if path.parent.name != '_base_'
)
IMAGENET = 'configs/imagenet/resnet50-gcp_8xb32-lradju_in1k.py'
COCO = 'configs/faster_rcnn/faster-rcnn_r50-gcp-m_fpn_1x_coco.py'


def build_model(cfg):
    """Build the model, without the pretrained weights that this test has none of."""
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.pop('init_cfg', None)
    if 'data_preprocessor' in cfg:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return MODELS.build(cfg.model)


def load(path):
    return Config.fromfile(ROOT / path)


@pytest.mark.parametrize('path', CONFIGS)
def test_config_builds(path):
    cfg = load(path)
    assert 'gcp_mm' in cfg.custom_imports['imports']
    check_head(cfg.model)
    assert sum(p.numel() for p in build_model(cfg).parameters()) > 1e6


@pytest.mark.parametrize('path', CONFIGS)
def test_rows_of_the_tables_are_short(path):
    assert len((ROOT / path).read_text().splitlines()) <= 25


@pytest.mark.parametrize('path', [p for p in CONFIGS if 'rcnn' in p])
def test_detector_starts_from_a_checkpoint_that_a_config_here_makes(path):
    cfg = load(path)
    checkpoint = Path(cfg.model.backbone.init_cfg.checkpoint)
    (source,) = [p for p in CONFIGS if Path(p).stem == checkpoint.parent.name]
    assert checkpoint.stem == f'epoch_{load(source).train_cfg.max_epochs}'
    assert cfg.model.backbone.init_cfg.prefix == 'backbone.'
    if 'gcp' in Path(path).name:
        assert (
            cfg.model.backbone.conv5
            == dict(d='stride', m='maxpool')[path.split('-gcp-')[1].split('_')[0]]
        )


def check_step(cfg, model, data):
    """One optimizer step through the framework's own data preprocessor and loss."""
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    trained = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    losses = model.train_step(data, optim_wrapper)
    assert torch.isfinite(losses['loss'])
    assert all(p.grad is None or p.grad.isfinite().all() for p in trained)
    changed = [not torch.equal(p, b) for p, b in zip(trained, before, strict=True)]
    assert sum(changed) > 0.9 * len(changed)


def test_imagenet_config_takes_a_step():
    from mmpretrain.structures import DataSample

    cfg = load(IMAGENET)
    model = build_model(cfg)
    model.init_weights()
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    samples = [DataSample().set_gt_label(label) for label in (3, 999)]
    (vector,) = model.extract_feat(torch.randn(2, 3, 224, 224))
    assert vector.shape == (2, 256 * 257 // 2)
    check_step(cfg, model, dict(inputs=images, data_samples=samples))


def test_coco_config_takes_a_step():
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    cfg = load(COCO)
    model = build_model(cfg)
    model.init_weights()
    sample = DetDataSample(
        gt_instances=InstanceData(
            bboxes=torch.tensor([[10.0, 10, 90, 100]]), labels=torch.tensor([17])
        ),
        metainfo=dict(img_shape=(120, 150), ori_shape=(120, 150), scale_factor=(1.0, 1.0)),
    )
    image = torch.randint(0, 256, (3, 120, 150), dtype=torch.uint8)
    check_step(cfg, model, dict(inputs=[image], data_samples=[sample]))


def test_lradju_is_the_papers_formula():
    """Table 3: 0.1 (1 - (e - 1) / 49)^2 in epochs 1 to 50, through mmengine's scheduler."""
    cfg = load(IMAGENET)
    assert cfg.train_cfg.max_epochs == 50
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 256
    optim_wrapper = build_optim_wrapper(torch.nn.Linear(1, 1), cfg.optim_wrapper)
    scheduler = PARAM_SCHEDULERS.build(
        cfg.param_scheduler, default_args=dict(optimizer=optim_wrapper)
    )
    for epoch in range(1, 51):
        (lr,) = optim_wrapper.get_lr()['lr']
        assert lr == pytest.approx(0.1 * (1 - (epoch - 1) / 49) ** 2, abs=1e-12)
        optim_wrapper.optimizer.step()
        scheduler.step()


def test_paper_settings_of_detection():
    cfg = load(COCO)
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)
    assert cfg.auto_scale_lr.base_batch_size == 8
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.param_scheduler[1].milestones == [8, 11]


def test_config_in_the_readme_builds(tmp_path):
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.S)
    (text,) = [block for block in blocks if block.startswith('_base_')]
    path = tmp_path / 'mobilenet-v2-gcp.py'
    path.write_text(text)
    cfg = Config.fromfile(path)
    check_head(cfg.model)
    model = build_model(cfg).eval()
    (scores,) = model(torch.rand(1, 3, 64, 64))
    assert scores.shape == (1000,)
