"""Stock detectors of MMDetection, of ResNet-18, train and predict, whatever computes operators."""

import mmdet.models  # noqa: F401  registers the detectors
import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope

CONFIGS = dict(
    faster_rcnn='faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    mask_rcnn='mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    cascade_rcnn='cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    retinanet='retinanet/retinanet_r50_fpn_1x_coco.py',
    fcos='fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    deformable_detr='deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
)


@pytest.mark.parametrize('name', CONFIGS)
def test_stock_detector_trains_and_predicts(name):
    torch.manual_seed(0)
    DefaultScope.get_instance('detectors', scope_name='mmdet')
    cfg = get_config(f'mmdet::{CONFIGS[name]}').model
    cfg.backbone.update(init_cfg=None, depth=18)  # a quarter of ResNet-50's channels
    cfg.neck.in_channels = [channels // 4 for channels in cfg.neck.in_channels]
    if 'rpn_head' in cfg:  # fewer boxes than of an image of 800 by 1333
        cfg.train_cfg.rpn_proposal.max_per_img = cfg.test_cfg.rpn.max_per_img = 64
    model = MODELS.build(cfg).train()
    model.init_weights()  # Deformable DETR leaves memory as it was for some parameters until then
    batch = demo_mm_inputs(
        2, image_shapes=(3, 96, 128), num_classes=80, with_mask=name == 'mask_rcnn'
    )
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    loss, shown = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss), shown
    grads = {key: p.grad for key, p in model.named_parameters() if p.requires_grad}
    assert all(grad is None or grad.isfinite().all() for grad in grads.values())
    assert any(grad.any() for key, grad in grads.items() if grad is not None and 'head' in key)
    with torch.no_grad():
        found = model.eval()(**model.data_preprocessor(batch, False), mode='predict')
    assert len(found) == 2
    for sample in found:
        result = sample.pred_instances
        assert len(result.bboxes) == len(result.scores) == len(result.labels)
        assert len(result.bboxes) <= cfg.test_cfg.get('rcnn', cfg.test_cfg).max_per_img
        if name == 'mask_rcnn':
            assert result.masks.shape[1:] == sample.ori_shape
