"""Keys that nothing reads are found, with their place and the nearest name."""

import re

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

import gcp_mm  # noqa: F401
from gcp_mm.checks import check_config, raise_errors
from gcp_mm.checks.data import check_data
from gcp_mm.checks.keys import check_keys, parameters_of
from gcp_mm.hub import resolve_config
from gcp_mm.runtime import AtomicCheckpointHook
from tests.helpers.checks import findings, texts
from tests.helpers.runs import CLS

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
            r"default_hooks\.checkpoint\.max_keep_ckpt: AtomicCheckpointHook .*'max_keep_ckpts'",
        ),
        (
            {'custom_hooks': [dict(type='DivergenceHook', polcy='skip')]},
            r'custom_hooks\[0\]\.polcy',
        ),
        ({'optim_wrapper.type': 'KFACOptimWrapper', 'optim_wrapper.dampin': 1}, "'damping'"),
        ({'model.neck.zzz': 1}, r'no such argument; it takes act_cfg, class_tokens, conv_cfg'),
    ],
)
def test_unknown_key_of_our_own(options, message):
    assert texts('error', check_keys, changed()) == []
    (text,) = texts('error', check_keys, changed(**options))
    assert re.search(message, text)


def test_unknown_key_of_a_scheduler():
    """Its first base takes any key, and hands it on."""
    steps = dict(type='MultiStepLR', milestones=[3], end=5)
    cfg = changed()
    cfg.param_scheduler = [steps, dict(type='mmdet.QuadraticWarmupLR', end=1)]
    assert texts('error', check_keys, cfg) == []
    cfg.param_scheduler[0].milstones = cfg.param_scheduler[0].pop('milestones')
    cfg.param_scheduler[1].bgin = 0
    found = texts('error', check_keys, cfg)
    assert [text.split(':')[0] for text in found] == [
        'param_scheduler[0].milstones',
        'param_scheduler[1].bgin',
    ]
    assert "did you mean 'milestones'?" in found[0]
    assert "did you mean 'begin'?" in found[1]


@pytest.mark.parametrize(
    ('options', 'check', 'key'),
    [
        ({'model.neck.reducton': (256,)}, 'keys', 'model.neck.reducton'),
        ({'model.backbone.frozen_stage': 1}, 'keys', 'model.backbone.frozen_stage'),
        ({'param_scheduler.powr': 2}, 'keys', 'param_scheduler.powr'),
        ({'model.neck.norm': 'eigen'}, 'head', 'norm'),
        ({'model.head.in_channels': 512}, 'head', 'model.head.in_channels'),
    ],
)
def test_a_mistake_is_told_once(options, check, key, tmp_path):
    found = check_config(changed(**options, work_dir=str(tmp_path)), level='network')
    # The data need not be here.
    (error,) = (each for each in found if each.status == 'error' and each.check != 'data')
    assert error.check == check
    assert key in error.text


def test_missing_key_of_our_own():
    cfg = changed()
    del cfg.model.neck['in_channels']
    (text,) = texts('error', check_keys, cfg)
    assert text == (
        'model.neck: GlobalCovariancePooling needs in_channels: set model.neck.in_channels'
    )
    cfg.model.neck.conv_cfg = dict(type='GCPResNet', zzz=1)  # is looked at all the same
    found = texts('error', check_keys, cfg)
    assert [text.split(':')[0] for text in found] == ['model.neck', 'model.neck.conv_cfg.zzz']


def test_unknown_key_behind_kwargs_of_the_frameworks():
    """Of a part of the model, which is built to know that the key is refused."""
    (text,) = texts('error', check_keys, changed(**{'model.head.num_clases': 3}))
    known = "LinearClsHead has no such argument; did you mean 'num_classes'?"
    assert text == f'model.head.num_clases: {known}'
    (text,) = texts('error', check_keys, changed(DET, **{'model.roi_head.bbox_head.num_clases': 3}))
    assert text.startswith('model.roi_head.bbox_head.num_clases: ')


def test_all_that_are_wrong_are_said():
    cfg = changed(**{'model.neck.reducton': 1, 'model.neck.zzz': 1, 'val_evaluator.thr': 1})
    cfg.model.backbone.dept = 18
    errors = texts('error', check_keys, cfg)
    paths = ['model.backbone.dept', 'model.neck.reducton', 'model.neck.zzz']
    assert [text.split(':')[0] for text in errors] == paths
    assert len(texts('warning', check_keys, cfg)) == 1
    with pytest.raises(ValueError, match='dept') as raised:
        raise_errors(findings(check_keys, cfg))
    assert str(raised.value).splitlines() == errors


def test_what_is_beneath_an_unknown_key_does_not_lead_astray():
    cfg = changed()
    cfg.model.nek = dict(type='GlobalCovariancePooling')
    (text,) = texts('error', check_keys, cfg)
    assert text == "model.nek: ImageClassifier has no such argument; did you mean 'neck'?"


def test_data_sets_that_are_imported_late():
    """What the parent takes and the class gives it itself is not missing."""
    cfg = resolve_config('resnet18-gcp_digits-c')
    assert [found.status for found in findings(check_keys, cfg, 'test')] == ['ok']
    cfg.test_dataloader.dataset.crop_sise = 1
    (text,) = texts('error', check_keys, cfg, 'test')
    assert re.search(r"^test_dataloader\.dataset\.crop_sise.*'crop_size'", text)
    assert texts('error', check_keys, cfg) == []  # which does not read it


@pytest.mark.parametrize(
    ('config', 'options', 'message'),
    [
        (CLS, {'val_evaluator.thr': 1}, 'val_evaluator.thr: Accuracy has no such argument; did '),
        (DET, {'model.neck.outs': 1}, "model.neck.outs: FPN has no such argument; did you mean '"),
        (
            DET,
            {'model.rpn_head.anchor_generator.scale': 1},
            'model.rpn_head.anchor_generator.scale: AnchorGenerator has no such argument; did you '
            "mean 'scales'?",
        ),
        # CheckpointHook takes any key, and fails with it when it first saves
        (
            DET,
            {
                'default_hooks.checkpoint.type': 'CheckpointHook',
                'default_hooks.checkpoint.intrvl': 1,
            },
            "default_hooks.checkpoint.intrvl: CheckpointHook has no such argument; did you mean 'i",
        ),
        (
            DET,
            {'custom_hooks': [dict(type='EMAHook', ema_tpe='ExponentialMovingAverage')]},
            None,  # it takes any
        ),
        (
            CLS,
            {'param_schedulers': []},  # where the config has its `param_scheduler`
            'param_schedulers: nothing reads it: did you mean param_scheduler?',
        ),
    ],
)
def test_unknown_key_of_a_framework_is_a_warning(config, options, message):
    found = findings(check_keys, changed(config, **options))
    assert [each for each in found if each.status == 'error'] == []
    warnings = [each.text for each in found if each.status == 'warning']
    assert [text.startswith(message) for text in warnings] == ([True] if message else [])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'model.hed': 1}, "model.hed: ImageClassifier has no such argument; did you mean 'head'?"),
        (
            {'optim_wrapper.optimizer.momentm': 0.9},
            "optim_wrapper.optimizer.momentm: SGD has no such argument; did you mean 'momentum'?",
        ),
        (
            {'train_cfg.max_epoch': 5},
            'train_cfg.max_epoch: EpochBasedTrainLoop has no such argument; did you mean '
            "'max_epochs'?",
        ),
        (
            {'train_cfg.by_epoch': False, 'train_cfg.max_epochs': 5},
            'train_cfg.max_epochs: IterBasedTrainLoop has no such argument; did you mean '
            "'max_iters'?",
        ),
        (
            {'val_cfg.fp61': True},
            "val_cfg.fp61: ValLoop has no such argument; did you mean 'fp16'?",
        ),
    ],
)
def test_unknown_key_of_what_mmengine_builds(options, message):
    """The run would raise a TypeError."""
    assert texts('error', check_keys, changed(**options)) == [message]


@pytest.mark.parametrize(
    ('place', 'kind', 'near'),
    [
        ('model', 'ImageClasifier', 'ImageClassifier'),
        ('model.backbone', 'GCPResNt', 'GCPResNet'),
        ('model.neck', 'mmpretrain.GlobalCovariancePoling', 'GlobalCovariancePooling'),
        ('train_dataloader.sampler', 'DefaultSampller', 'DefaultSampler'),
        ('train_dataloader.dataset', 'CustomDatset', 'CustomDataset'),
        ('train_dataloader.dataset.pipeline[0]', 'LoadImageFromFle', 'LoadImageFromFile'),
        ('optim_wrapper', 'OptimWraper', 'OptimWrapper'),
        ('optim_wrapper.optimizer', 'SDG', 'SGD'),
        ('param_scheduler', 'PolyRL', 'PolyLR'),
        ('val_evaluator', 'Acuracy', 'Accuracy'),
        ('train_cfg', 'EpochBasedTrainLop', 'EpochBasedTrainLoop'),
        ('default_hooks.timer', 'IterTimerHok', 'IterTimerHook'),
        ('custom_hooks[0]', 'EMAHok', 'EMAHook'),
    ],
)
def test_types_that_nothing_registers(place, kind, near):
    cfg = changed(custom_hooks=[dict(type='EMAHook')])
    cfg.merge_from_dict({re.sub(r'\[(\d)\]', r'.\1', f'{place}.type'): kind})
    (text,) = texts('error', check_keys, cfg)
    assert text.startswith(f'{place}.type: nothing registers {kind!r}; did you mean {near!r}? Else')


def test_types_of_which_nothing_is_known():
    """Of another framework, of what an Evaluator is made of, and those registered by the user."""
    cfg = changed(custom_hooks=[dict(type='Zzz'), dict(type='mmyolo.SwitchHook')])
    cfg.val_evaluator = dict(type='Evaluator', metrics=[dict(type='Accuracy')])
    assert texts('error', check_keys, cfg) == [
        "custom_hooks[0].type: nothing registers 'Zzz'; install the packages that it "
        'needs, or add its module to custom_imports'
    ]
    HOOKS.register_module(name='Zzz', module=Hook)
    try:
        assert texts('error', check_keys, cfg) == []
    finally:
        HOOKS.module_dict.pop('Zzz')
    cfg = Config(dict(default_scope='mmyolo', model=dict(type='YOLODetector')))
    assert texts('error', check_keys, cfg) == []


def test_class_list_that_is_a_string(tmp_path):
    """('digit') is no tuple: its classes would be five letters."""
    cfg = changed(DET)
    cfg.train_dataloader.dataset.metainfo = dict(classes=('digit'))
    (text,) = texts('error', check_keys, cfg)
    assert text.startswith("train_dataloader.dataset.metainfo.classes='digit' is a string")
    assert "write ['digit']" in text
    names = tmp_path / 'names.txt'
    names.write_text('digit')
    for right in (('digit',), ['digit'], str(names), 's3://names.txt'):
        cfg.train_dataloader.dataset.metainfo = dict(classes=right)
        assert texts('error', check_keys, cfg) == []
    cfg.val_dataloader.dataset = dict(
        type='RepeatDataset', dataset=dict(metainfo=dict(classes='x'))
    )
    (text,) = texts('error', check_keys, cfg)
    assert text.startswith('val_dataloader.dataset.dataset.metainfo.classes')


def test_class_list_of_a_classifier_that_is_a_string(few_digits):
    """MMPretrain takes it for a file of names, which is not there."""
    cfg = changed(**{'train_dataloader.dataset.classes': 'digit'})
    for name in ('train_dataloader', 'val_dataloader'):
        cfg[name].dataset.data_root = str(few_digits)
    (text,) = texts('error', check_data, cfg)
    assert re.search(r'^train_dataloader\.dataset: CustomDataset cannot be built: .*digit', text)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'default_hooks.chekpoint.max_keep_ckpts': 3},
            'default_hooks.chekpoint: did you mean default_hooks.checkpoint? Else set its type',
        ),
        (
            {'train_dataloader.bacth_size': 32},
            "train_dataloader.bacth_size: DataLoader has no such argument; did you mean 'batch_si",
        ),
        ({'val_dataloader.num_batch_per_epoch': 3}, None),
        ({'default_hooks.timer': None}, None),
    ],
)
def test_parts_without_a_class(options, message):
    found = texts('error', check_keys, changed(**options))
    assert [text.startswith(message) for text in found] == ([True] if message else [])


def test_part_of_a_runner_that_is_misspelt():
    cfg = changed()
    for part in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg.pop(part)
    assert texts('warning', check_keys, cfg) == []  # train_dataloader is near val_dataloader
    cfg.trian_cfg = cfg.pop('train_cfg')
    assert texts('warning', check_keys, cfg) == [
        'trian_cfg: nothing reads it: did you mean train_cfg? The config has no train_cfg'
    ]


def test_part_of_a_runner_that_is_misspelt_beside_the_right_one():
    """As --cfg-options leave it. Variables that resemble a part are an author's own."""
    cfg = changed(**{'trian_cfg.max_epochs': 2, 'gallery_dataloader': {}, 'conv_cfg': {}})
    assert texts('warning', check_keys, cfg) == [
        'trian_cfg: nothing reads it: did you mean train_cfg?'
    ]


def test_scope_of_a_part_and_what_is_in_it():
    backbone = dict(type='ResNet', depth=18, _scope_='mmpretrain', drop_path_rate=0.1)
    cfg = Config(dict(default_scope='mmdet', model=dict(type='RetinaNet', backbone=backbone)))
    assert [found.status for found in findings(check_keys, cfg)] == ['ok']
    backbone = dict(type='ImageClassifier', backbone=dict(backbone), _scope_='mmpretrain')
    del backbone['backbone']['_scope_']
    cfg.model.backbone = backbone
    assert [found.status for found in findings(check_keys, cfg)] == ['ok']
    cfg.model.neck = dict(type='ResNet', drop_path_rate=0.1)  # which is not in it
    (text,) = texts('warning', check_keys, cfg)
    assert text.startswith('model.neck.drop_path_rate: ResNet has no such argument')


def test_keys_that_others_read():
    """Of builders, of mmcv's layers, and of classes that this cannot look into."""
    cfg = changed()
    cfg.model.backbone.norm_cfg = dict(type='BN', requires_grad=True)
    cfg.custom_hooks = [dict(type='SyncBuffersHook', priority='LOW')]
    cfg.optim_wrapper.paramwise_cfg = dict(norm_decay_mult=0)
    cfg.model.neck.act_cfg = dict(type='HSigmoid', anything=1)
    cfg.model.head.loss = dict(type='mmdet.CrossEntropyLoss', bg_cls_weight=0.1)
    cfg.model.train_cfg = dict(upsample=dict(type='nearest', anything=1))  # of no registry
    cfg.variable = dict(type='GCPResNet', dept=18)  # its author's own
    assert [found.status for found in findings(check_keys, cfg)] == ['ok']
    # The metric of this name takes less. The data set wants further packages.
    cfg.val_dataloader.dataset = dict(type='COCOCaption', data_root='data', ann_file='a.json')
    assert texts('warning', check_keys, cfg) == []


def test_kinds_given_as_classes_and_under_a_scope():
    cfg = Config(dict(default_hooks=dict(c=dict(type=AtomicCheckpointHook, intervall=1))))
    assert 'intervall' in texts('error', check_keys, cfg)[0]
    cfg = Config(dict(model=dict(type='mmpretrain.ImageClassifier', zzz=1)))
    assert findings(check_keys, cfg)[0].status == 'error'


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


def test_class_with_a_method_named_load():
    cfg = changed()
    step = dict(type='LoadCheckedImage', on_error='skip')
    cfg.train_dataloader.dataset.pipeline[0] = step
    assert [found.status for found in findings(check_keys, cfg)] == ['ok']
    step['on_eror'] = step.pop('on_error')
    cfg.train_dataloader.dataset.pipeline[0] = step
    (text,) = texts('error', check_keys, cfg)
    assert re.search(r"on_eror.*'on_error'", text)


def test_what_only_the_frameworks_read_is_unknown_to_our_own():
    (text,) = texts('error', check_keys, changed(**{'model.backbone.pretrained': 'x.pth'}))
    assert 'model.backbone.pretrained' in text
