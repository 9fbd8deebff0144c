"""Keys that nothing reads are found, by a check or by the class that does not take them."""

import pytest

from gcp_mm.checks import check_config
from gcp_mm.checks.keys import check_keys
from gcp_mm.hub import resolve_config
from gcp_mm.runtime import read_config
from tests.helpers.checks import texts
from tests.helpers.runs import CLS


def changed(**options):
    cfg = resolve_config(CLS)
    cfg.merge_from_dict(options)
    return cfg


@pytest.mark.parametrize(
    ('options', 'check', 'words'),
    [
        ({'model.neck.reducton': 1}, 'head', ('GlobalCovariancePooling', "'reducton'")),
        ({'model.neck.norm': 'eigen'}, 'head', ('norm', "'eigen'")),
        ({'model.head.in_channels': 512}, 'head', ('model.head.in_channels=8256',)),
        ({'model.backbone.frozen_stage': 1}, 'network', ("'frozen_stage'",)),
        ({'model.hed': 1}, 'network', ('ImageClassifier', "'hed'")),
        ({'model.head.num_clases': 3}, 'network', ('ClsHead', "'num_clases'")),
        ({'model.backbone.depth': 19}, 'network', ('depth: expected one of',)),
        ({'data_preprocessor.mean': [120] * 5}, 'metrics', ('model.val_step: ',)),
        ({'optim_wrapper.optimizer.momentm': 0.9}, 'step', ('SGD', "argument 'momentm'")),
        ({'optim_wrapper': dict(type='KFACOptimWrapper', dampin=1)}, 'step', ("nt 'dampin'",)),
        ({'optim_wrapper': dict(type='AmpOptimWrapper', dtyp=1)}, 'step', ("argument 'dtyp'",)),
        ({'optim_wrapper.clip_grad': dict(max_nrm=1)}, 'step', ("argument 'max_nrm'",)),
        ({'optim_wrapper.constructor': 'Defalt'}, 'step', ('optim_wrapper=', 'Defalt is not in')),
        ({'optim_wrapper.paramwise_cfg.custom_keys.neck': 1}, 'step', ('optim_wrapper=',)),
        ({'optim_wrapper.optimizer.lr': -1}, 'step', ('Invalid learning rate: -1',)),
        ({'optim_wrapper.optimizer.lr': 'abc'}, 'keys', ('.optimizer.lr', "'abc'")),
        ({'optim_wrapper.optimizer.type': 'SDG'}, 'keys', ('.optimizer.type', "'SDG'")),
        ({'custom_hooks': [dict(type='DivergenceHook', foo=1)]}, 'keys', ('_hooks[0]', "'foo'")),
        ({'default_hooks.loger.interval': 1}, 'keys', ('default_hooks.loger', 'type')),
        ({'train_cfg.max_epoch': 5}, 'keys', ('train_cfg.max_epoch=5', 'mean max_epochs')),
        ({'val_cfg.fp17': True}, 'keys', ('val_cfg.fp17=True', 'ValLoop', 'mean fp16')),
        ({'param_scheduler.powr': 2}, 'schedule', ("'powr'",)),
        ({'default_hooks.checkpoint.max_keep_ckpt': 1}, 'schedule', ("'max_keep_ckpt'",)),
        ({'val_evaluator.thr': 1}, 'metrics', ('Accuracy', "'thr'")),
        ({'val_evaluator.thrs': 'x'}, 'metrics', ('val_evaluator: ',)),
        ({'val_evaluator.topk': (1, 11)}, 'metrics', ('val_evaluator: ', 'Top-11 accuracy')),
        ({'val_evaluator.type': 'Acuracy'}, 'metrics', ('val_evaluator: ', 'Acuracy')),
        ({'train_dataloader.bacth_size': 32}, 'collation', ('DataLoader', "'bacth_size'")),
        ({'train_dataloader.dataset.pipeline.1.sise': 1}, 'collation', ('RandomCrop', "'sise'")),
        ({'train_dataloader.dataset.prefix': 'x'}, 'data', ('CustomDataset', "'prefix'")),
        # MMPretrain takes it for a file of names, which is not there
        ({'train_dataloader.dataset.classes': 'digit'}, 'data', ('CustomDataset', "'digit'")),
    ],
)
def test_a_mistake_is_found_where_a_class_is_built(options, check, words, few_digits):
    """And the checks that would fail by it again say nothing of it."""
    roots = {f'{name}_dataloader.dataset.data_root': str(few_digits) for name in ('train', 'val')}
    cfg = changed(**roots, **options, work_dir=str(few_digits))
    for name in ('train', 'val'):
        cfg[f'{name}_dataloader'].collate_fn = dict(type='default_collate')
    errors = [each for each in check_config(cfg, level='network') if each.status == 'error']
    assert errors[0].check == check
    assert all(word in errors[0].text for word in words)
    assert len(errors) == 1 or check in ('keys', 'collation')


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


def test_loops_that_say_what_they_count():
    cfg = changed(train_cfg=dict(_delete_=True, by_epoch=False, max_iters=5, max_epochs=5))
    (text,) = texts('error', check_keys, cfg)
    assert text.startswith('train_cfg.max_epochs=5: IterBasedTrainLoop takes no max_epochs')
    cfg.train_cfg.pop('max_epochs')
    assert texts('error', check_keys, cfg) == []


def test_options_that_would_change_nothing(tmp_path):
    """What the file has computed with a variable stays."""
    path = tmp_path / 'config.py'
    path.write_text("epochs = 3\ntrain_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs)\n")
    cfg = read_config(str(path), {'train_cfg.max_epochs': 5, 'load_from': 'x', 'tta_model.a': 1})
    assert (cfg.train_cfg.max_epochs, cfg.load_from, cfg.tta_model.a) == (5, 'x', 1)
    for options, words in (
        ({'epochs': 5}, 'epochs: nothing reads epochs .* stands for'),
        ({'load_form': 'x'}, 'load_form: .* did you mean load_from'),
        ({'optimizer.lr': 0.1}, r'optimizer\.lr: nothing reads optimizer .*optim_wrapper'),
        ({'modle.head.num_classes': 5}, r'modle\.head\.num_classes: .* did you mean model'),
    ):
        with pytest.raises(ValueError, match=words):
            read_config(str(path), options)
