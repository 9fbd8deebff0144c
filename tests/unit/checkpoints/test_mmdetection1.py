"""Detectors of MMDetection before 2.0 become those of today: same weights, classes in order."""

import functools
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from gcp_mm import get_model
from gcp_mm.checkpoints import convert_checkpoint, read_checkpoint
from gcp_mm.hub import resolve_config
from tests.helpers.runs import ROOT

pytest.importorskip('mmdet')

MASK = 'mask-rcnn_r18-gcp-m_fpn_4e_digits'
FASTER = 'faster-rcnn_r18-gcp-d_fpn_4e_digits'
CLASSES = tuple('abcdefghij')
# What the converter of a file that old reads from the config in it
CONFIG = 'config.py\nmodel = dict(rpn_head=dict(), bbox_head=dict(reg_class_agnostic=False))\n'


@functools.cache
def weights(name):
    """The weights of a detector, all different."""
    cfg = resolve_config(name)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmdet'):
        state = MODELS.build(cfg.model).state_dict()
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in state.items()
    }


def before_2(state):
    """The file that MMDetection 1.1 would have saved: background first, of boxes and masks too."""
    old = {}
    for key, value in state.items():
        if '.fc_cls.' in key:
            value = torch.cat([value[-1:], value[:-1]])
        elif '.fc_reg.' in key:
            value = torch.cat([torch.full_like(value[:4], 7), value])
        elif '.conv_logits.' in key:
            value = torch.cat([torch.full_like(value[:1], 7), value])
        old[key.removeprefix('roi_head.')] = value
    meta = dict(mmdet_version='1.1.0+unknown', config=CONFIG, CLASSES=CLASSES, epoch=12, iter=1)
    return dict(meta=meta, state_dict=old, optimizer=dict(state={}, param_groups=[]))


def save(content, path):
    torch.save(content, path)
    return path


@pytest.mark.parametrize(('name', 'kind'), [(MASK, 'Mask R-CNN'), (FASTER, 'Faster R-CNN')])
def test_every_weight_is_where_it_belongs(name, kind, tmp_path):
    expected = weights(name)
    old = before_2(expected)
    assert 'bbox_head.fc_cls.weight' in old['state_dict']
    file = convert_checkpoint(save(old, tmp_path / 'old.pth'), tmp_path / 'new.pth')
    model = get_model(name, file)  # strict
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert model.dataset_meta['classes'] == CLASSES
    meta = read_checkpoint(file)['meta']
    assert (meta['architecture'], meta['num_classes']) == (kind, 10)
    assert file.stat().st_size < (tmp_path / 'old.pth').stat().st_size * 1.01


def test_backbone_only(tmp_path):
    source = save(before_2(weights(FASTER)), tmp_path / 'old.pth')
    file = convert_checkpoint(source, tmp_path / 'new.pth', backbone_only=True)
    assert {key.split('.')[0] for key in read_checkpoint(file)['state_dict']} == {'backbone'}


def test_without_conversion_it_is_refused(tmp_path):
    """Nothing of the heads has a name of today's; the message names the remedy."""
    file = save(before_2(weights(FASTER)), tmp_path / 'old.pth')
    with pytest.raises(ValueError, match=r'before 2\.0: .*convert_checkpoint\.py.* missing keys'):
        get_model(FASTER, file)
    with pytest.raises(ValueError, match='config is of a classifier, the file of a detector'):
        get_model('resnet18-gcp_1xb64-5e_digits', file)


def test_boxes_that_all_classes_share(tmp_path):
    old = before_2(weights(FASTER))
    for name in ('weight', 'bias'):
        old['state_dict'][f'bbox_head.fc_reg.{name}'] = old['state_dict'][
            f'bbox_head.fc_reg.{name}'
        ][:4]
    file = convert_checkpoint(save(old, tmp_path / 'old.pth'), tmp_path / 'new.pth')
    settings = dict(roi_head=dict(bbox_head=dict(reg_class_agnostic=True)))
    assert len(get_model(FASTER, file, **settings).roi_head.bbox_head.fc_reg.bias) == 4


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('rpn_head.rpn_cls.weight', torch.zeros(6, 1, 1, 1), '6 for 12 outputs of rpn_reg'),
        ('bbox_head.fc_reg.bias', torch.zeros(40), r'10 classes .*fc_reg\.bias \(40,\)'),
        ('bbox_head.fc_cls.bias', torch.zeros(()), r'10 classes .*fc_cls\.bias \(\)'),
        ('mask_head.conv_logits.bias', torch.zeros(10), r'conv_logits\.bias \(10,\)'),
        ('bbox_head.1.fc_cls.bias', torch.zeros(10), r'bbox_head\.1\.fc_cls\.bias \(10,\)'),
        ('semantic_head.weight', torch.zeros(1), r'match none .*: semantic_head\.weight'),
    ],
)
def test_other_detectors_are_refused(key, value, message, tmp_path):
    old = before_2(weights(MASK))
    old['state_dict'][key] = value
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(save(old, tmp_path / 'old.pth'), tmp_path / 'new.pth')


def test_mmdetections_own_script_moves_some_biases(tmp_path):
    """Why there is a converter here. If this fails, MMDetection mended its script."""
    import mmdet

    script = Path(mmdet.__file__).parent / '.mim/tools/model_converters/upgrade_model_version.py'
    if not script.is_file():
        pytest.skip('this build of MMDetection has no tools')
    spec = importlib.util.spec_from_file_location('upgrade_model_version', script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    expected = weights(MASK)
    source = save(before_2(expected), tmp_path / 'old.pth')
    module.convert(str(source), str(tmp_path / 'theirs.pth'), num_classes=11)
    theirs = get_model(MASK, tmp_path / 'theirs.pth').state_dict()  # all names and shapes fit
    assert {key for key, value in theirs.items() if not torch.equal(value, expected[key])} == {
        'roi_head.bbox_head.fc_reg.bias',
        'roi_head.mask_head.conv_logits.bias',
        'rpn_head.rpn_cls.bias',
    }


@pytest.mark.parametrize('name', [FASTER, MASK])
def test_options_of_the_page_make_the_boxes_of_that_time(name):
    page = (ROOT / 'docs/model_zoo.md').read_text()
    section = page.split('## Detector weights')[1]
    options = dict(re.findall(r'(model\.\S+?)=(\S+)', section))
    assert any('LegacyAnchorGenerator' in value for value in options.values())
    values = {key: {'False': False, '0.5': 0.5}.get(v, v) for key, v in options.items()}
    if 'mask' not in name:
        values = {key: value for key, value in values.items() if '.mask_' not in key}
    cfg = resolve_config(name)
    cfg.merge_from_dict(values)
    detector = get_model(cfg)
    assert type(detector.rpn_head.prior_generator).__name__ == 'LegacyAnchorGenerator'
    coders = (detector.rpn_head.bbox_coder, detector.roi_head.bbox_head.bbox_coder)
    assert {type(coder).__name__ for coder in coders} == {'LegacyDeltaXYWHBBoxCoder'}
    layers = list(detector.roi_head.bbox_roi_extractor.roi_layers)
    if 'mask' in name:
        layers += detector.roi_head.mask_roi_extractor.roi_layers
    assert not any(layer.aligned for layer in layers)

    from mmdet.apis import inference_detector

    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert inference_detector(detector, image).pred_instances.bboxes.isfinite().all()
