"""Keys that nothing reads are found, with their place and the nearest name."""

import pytest
from mmengine.config import Config

import gcp_mm  # noqa: F401
from gcp_mm.engine import GCPCheckpointHook
from gcp_mm.preflight.keys import check_keys
from gcp_mm.preflight.registered import parameters_of
from gcp_mm.zoo import resolve_config

from .conftest import CLS

DET = 'faster-rcnn_r18-gcp-m_fpn_4e_digits'


def changed(config=CLS, **options):
    cfg = resolve_config(config)
    cfg.merge_from_dict(options)
    return cfg


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'model.neck.reducton': (256,)},
            r"^model\.neck\.reducton: GlobalCovariancePooling has no .*did you mean 'reduction'\?",
        ),
        # behind **kwargs: an argument of the parent in MMPretrain
        ({'model.backbone.frozen_stage': 1}, r"model\.backbone\.frozen_stage.*'frozen_stages'"),
        # CheckpointHook takes any key, and fails with it when it first saves
        (
            {'default_hooks.checkpoint.max_keep_ckpt': 1},
            r"default_hooks\.checkpoint\.max_keep_ckpt: GCPCheckpointHook .*'max_keep_ckpts'",
        ),
        (
            {'custom_hooks': [dict(type='DivergenceHook', polcy='skip')]},
            r'custom_hooks\[0\]\.polcy',
        ),
        ({'optim_wrapper.type': 'KFACOptimWrapper', 'optim_wrapper.dampin': 1}, "'damping'"),
        ({'model.neck.zzz': 1}, r'no such argument; it takes act_cfg, check_finite, conv_cfg'),
    ],
)
def test_unknown_key_of_our_own(options, message):
    check_keys(changed(), 'train')
    with pytest.raises(ValueError, match=message):
        check_keys(changed(**options), 'train')


def test_missing_key_of_our_own():
    cfg = changed()
    del cfg.model.neck['in_channels']
    with pytest.raises(ValueError, match=r'model\.neck: Glo.* needs in_channels: set model\.neck'):
        check_keys(cfg, 'train')


def test_data_sets_that_are_imported_late():
    """What the parent takes and the class gives it itself is not missing."""
    cfg = resolve_config('resnet18-gcp_digits-c')
    assert [found.status for found in check_keys(cfg, 'test')] == ['ok']
    cfg.test_dataloader.dataset.sevrity = 1
    with pytest.raises(ValueError, match=r"test_dataloader\.dataset\.sevrity.*'severity'"):
        check_keys(cfg, 'test')
    check_keys(cfg, 'train')  # which does not read it


@pytest.mark.parametrize(
    ('config', 'options', 'message'),
    [
        (
            CLS,
            {'model.hed': 1},
            "model.hed: ImageClassifier has no such argument; did you mean 'he",
        ),
        (CLS, {'val_evaluator.thr': 1}, 'val_evaluator.thr: Accuracy has no such argument; did '),
        (DET, {'model.neck.outs': 1}, "model.neck.outs: FPN has no such argument; did you mean '"),
        (
            DET,
            {'model.rpn_head.anchor_generator.scale': 1},
            'model.rpn_head.anchor_generator.scale: AnchorGenerator has no such argument; did you '
            "mean 'scales'?",
        ),
    ],
)
def test_unknown_key_of_a_framework_is_a_warning(config, options, message):
    (found,) = check_keys(changed(config, **options), 'train')
    assert found.status == 'warning'
    assert found.text.startswith(message)


def test_keys_that_others_read():
    """Of builders, of mmcv's layers, and of classes that this cannot look into."""
    cfg = changed()
    cfg.model.backbone.norm_cfg = dict(type='BN', requires_grad=True)
    cfg.custom_hooks = [dict(type='SyncBuffersHook', priority='LOW')]
    cfg.optim_wrapper.paramwise_cfg = dict(norm_decay_mult=0)
    cfg.model.neck.act_cfg = dict(type='HSigmoid', anything=1)
    cfg.model.head.loss = dict(type='mmdet.CrossEntropyLoss', bg_cls_weight=0.1)
    cfg.model.head.upsample = dict(type='nearest', anything=1)  # of no registry
    # The metric of this name takes less.
    cfg.val_dataloader.dataset = dict(type='COCOCaption', data_root='data', ann_file='a.json')
    cfg.variable = dict(type='GCPResNet', dept=18)  # its author's own
    assert [found.status for found in check_keys(cfg, 'train')] == ['ok']


def test_kinds_given_as_classes_and_under_a_scope():
    cfg = Config(dict(default_hooks=dict(c=dict(type=GCPCheckpointHook, intervall=1))))
    with pytest.raises(ValueError, match='intervall'):
        check_keys(cfg, 'train')
    cfg = Config(dict(model=dict(type='mmpretrain.ImageClassifier', zzz=1)))
    assert check_keys(cfg, 'train')[0].status == 'warning'


def test_parameters_end_where_a_constructor_takes_no_more():
    class Base:
        def __init__(self, c):
            pass

    class Closed(Base):
        def __init__(self, b):
            pass

    class Open(Closed):
        def __init__(self, a, *args, **kwargs):
            pass

    assert list(parameters_of(Open)) == ['b', 'a']
    assert list(parameters_of(lambda x, *, y=1, **z: 0)) == ['x', 'y']
