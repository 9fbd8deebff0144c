"""Keys that nothing reads are found, with their place and the nearest name."""

import re

import pytest
from mmengine.config import Config

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


@pytest.mark.parametrize(
    ('options', 'check', 'key'),
    [
        ({'model.neck.reducton': (256,)}, 'keys', 'model.neck.reducton'),
        ({'model.backbone.frozen_stage': 1}, 'keys', 'model.backbone.frozen_stage'),
        ({'param_scheduler.powr': 2}, 'schedule', 'powr'),
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


def test_all_that_are_wrong_are_said():
    cfg = changed(**{'model.neck.reducton': 1, 'model.neck.zzz': 1})
    cfg.model.backbone.dept = 18
    errors = texts('error', check_keys, cfg)
    paths = ['model.backbone.dept', 'model.neck.reducton', 'model.neck.zzz']
    assert [text.split(':')[0] for text in errors] == paths
    with pytest.raises(ValueError, match='dept') as raised:
        raise_errors(findings(check_keys, cfg))
    assert str(raised.value).splitlines() == errors


def test_what_is_beneath_an_unknown_key_does_not_lead_astray():
    cfg = changed()
    cfg.model.backbone.nek = dict(type='GlobalCovariancePooling')
    (text,) = texts('error', check_keys, cfg)
    assert text.startswith('model.backbone.nek: GCPResNet has no such argument; ')


def test_data_sets_that_are_imported_late():
    """What the parent takes and the class gives it itself is not missing."""
    cfg = resolve_config('resnet18-gcp_digits-c')
    assert [found.status for found in findings(check_keys, cfg, 'test')] == ['ok']
    cfg.test_dataloader.dataset.crop_sise = 1
    (text,) = texts('error', check_keys, cfg, 'test')
    assert re.search(r"^test_dataloader\.dataset\.crop_sise.*'crop_size'", text)
    assert texts('error', check_keys, cfg) == []  # which does not read it


@pytest.mark.parametrize(
    ('options', 'check', 'words'),
    [
        ({'model.hed': 1}, 'network', ('ImageClassifier', "'hed'")),
        ({'model.head.num_clases': 3}, 'network', ('ClsHead', "'num_clases'")),
        ({'optim_wrapper.optimizer.momentm': 0.9}, 'step', ('SGD', "'momentm'")),
        ({'val_evaluator.thr': 1}, 'metrics', ('Accuracy', "'thr'")),
        ({'train_dataloader.bacth_size': 32}, 'collation', ('DataLoader', "'bacth_size'")),
        ({'train_dataloader.dataset.pipeline.1.sise': 1}, 'collation', ('RandomCrop', "'sise'")),
        ({'train_dataloader.dataset.prefix': 'x'}, 'data', ('CustomDataset', "'prefix'")),
    ],
)
def test_unknown_key_of_a_framework(options, check, words, few_digits):
    """Its class refuses it, where a check builds it."""
    roots = {f'{name}_dataloader.dataset.data_root': str(few_digits) for name in ('train', 'val')}
    cfg = changed(**roots, **options, work_dir=str(few_digits))
    for name in ('train', 'val'):
        cfg[f'{name}_dataloader'].collate_fn = dict(type='default_collate')
    (text, *_) = (
        each.text
        for each in check_config(cfg, level='network')
        if (each.check, each.status) == (check, 'error')
    )
    assert all(word in text for word in words)


def test_optimizer_that_nothing_registers():
    (text,) = texts('error', check_keys, changed(**{'optim_wrapper.optimizer.type': 'SDG'}))
    assert text.startswith("optim_wrapper.optimizer.type: nothing registers 'SDG': correct it")


def test_class_list_of_a_classifier_that_is_a_string(few_digits):
    """MMPretrain takes it for a file of names, which is not there."""
    cfg = changed(**{'train_dataloader.dataset.classes': 'digit'})
    for name in ('train_dataloader', 'val_dataloader'):
        cfg[name].dataset.data_root = str(few_digits)
    (text,) = texts('error', check_data, cfg)
    assert re.search(r'^train_dataloader\.dataset: CustomDataset cannot be built: .*digit', text)


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
    assert texts('warning', check_keys, changed(param_schedulers=[])) == [
        'param_schedulers: nothing reads it: did you mean param_scheduler?'
    ]
    cfg = changed(**{'trian_cfg.max_epochs': 2, 'gallery_dataloader': {}, 'conv_cfg': {}})
    assert texts('warning', check_keys, cfg) == [
        'trian_cfg: nothing reads it: did you mean train_cfg?'
    ]


def test_keys_that_others_read():
    """Of mmcv's layers, and of classes of others."""
    cfg = changed()
    cfg.model.backbone.norm_cfg = dict(type='AllReduceBN', requires_grad=True)
    cfg.custom_hooks = [dict(type='DivergenceHook', priority='LOW')]
    cfg.optim_wrapper = dict(type='KFACOptimWrapper', paramwise_cfg=dict(norm_decay_mult=0))
    cfg.model.head.loss = dict(type='mmdet.CrossEntropyLoss', bg_cls_weight=0.1)
    cfg.variable = dict(type='GCPResNet', dept=18)  # its author's own
    assert [found.status for found in findings(check_keys, cfg)] == ['ok']
    # The metric of this name takes less. The data set wants further packages.
    cfg.val_dataloader.dataset = dict(type='COCOCaption', data_root='data', ann_file='a.json')
    assert texts('warning', check_keys, cfg) == []


def test_kinds_given_as_classes_and_under_a_scope():
    cfg = Config(dict(default_hooks=dict(c=dict(type=AtomicCheckpointHook, intervall=1))))
    assert 'intervall' in texts('error', check_keys, cfg)[0]
    cfg = Config(dict(model=dict(type='mmpretrain.GCPResNet', zzz=1)))
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
