"""Mistakes in a config are found before a run begins."""

import functools
import re

import mmengine.config.utils
import pytest
import torch
from gcp_mm.checks.batch import check_batch
from gcp_mm.checks.classes import check_classes, count_classes
from gcp_mm.checks.finding import errors_in
from gcp_mm.checks.head import check_head
from mmengine.config import Config, ConfigDict

from gcp_mm.checks import check_run, warnings_in
from gcp_mm.checks.data import check_dataset
from gcp_mm.checks.keys import check_keys
from gcp_mm.checks.schedule import check_schedule
from gcp_mm.hub import list_models, resolve_config
from tests.helpers.runs import CLS


@pytest.fixture(scope='module', autouse=True)
def metafiles_are_read_once():
    """mmengine reads all of MMPretrain's for every base that a config takes from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmengine.config.utils, 'load', functools.cache(mmengine.config.utils.load))
        yield


def model(in_channels, reduction=(128,), **neck):
    neck = dict(type='GlobalCovariancePooling', in_channels=512, reduction=reduction, **neck)
    return ConfigDict(neck=neck, head=dict(type='LinearClsHead', in_channels=in_channels))


@pytest.mark.parametrize(
    ('in_channels', 'reduction'), [(8256, (128,)), (8256, (256, 128)), (131328, ())]
)
def test_right_head_passes(in_channels, reduction):
    check_head(model(in_channels, reduction))


@pytest.mark.parametrize('reduction', [(128,), [256, 128]])
def test_wrong_head_is_told_the_right_number(reduction):
    with pytest.raises(
        ValueError, match=r'in_channels=512, but .* set model.head.in_channels=8256'
    ):
        check_head(model(512, reduction))


def test_neck_in_a_list_and_under_a_scope():
    config = model(512)
    config.neck['type'] = 'mmengine.GlobalCovariancePooling'
    config.neck = [dict(type='Identity'), config.neck]
    with pytest.raises(ValueError, match='8256'):
        check_head(config)


def test_wrong_neck_is_refused_too():
    with pytest.raises(ValueError, match='reduction'):
        check_head(model(8256, (0,)))


def test_other_models_pass():
    check_head(ConfigDict(backbone=dict(type='ResNet')))
    check_head(ConfigDict(neck=dict(type='FPN', in_channels=[1, 2])))
    check_head(ConfigDict(neck=[]))


@pytest.fixture
def coco(tmp_path):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train/1.jpg').touch()
    (tmp_path / 'instances.json').write_text('{}')
    return dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        data_prefix=dict(img='train'),
        ann_file='instances.json',
    )


def test_dataset_that_is_there(coco):
    check_dataset(coco, 'train_dataloader')


def test_absent_annotations(coco):
    coco['ann_file'] = 'nowhere.json'
    with pytest.raises(FileNotFoundError, match=r'val_dataloader.*nowhere\.json.*data_root'):
        check_dataset(coco, 'val_dataloader')


def test_absent_folder(coco):
    coco['data_prefix']['img'] = 'nowhere'
    with pytest.raises(FileNotFoundError, match=r'train_dataloader.*nowhere'):
        check_dataset(coco, 'train_dataloader')


def test_empty_folder(coco, tmp_path):
    (tmp_path / 'train/1.jpg').rename(tmp_path / 'train.jpg')
    (tmp_path / 'train/n01440764').mkdir()
    with pytest.raises(ValueError, match='holds no file'):
        check_dataset(coco, 'train_dataloader')


def test_imagenet_split_is_its_folder(tmp_path):
    (tmp_path / 'val').mkdir()
    with pytest.raises(ValueError, match="val' holds no file"):
        check_dataset(dict(type='ImageNet', data_root=str(tmp_path), split='val'), 'x')


def test_empty_annotations(coco, tmp_path):
    (tmp_path / 'instances.json').write_text('')
    with pytest.raises(ValueError, match=r"instances\.json' is empty"):
        check_dataset(coco, 'train_dataloader')


def test_folder_named_by_its_prefix_alone(coco, tmp_path):
    cfg = config(train_dataloader=dict(dataset=dict(data_prefix=str(tmp_path / 'nowhere'))))
    with pytest.raises(FileNotFoundError, match='nowhere'):
        check_run(cfg, 'train')


def test_data_that_mmpretrain_downloads_may_be_absent():
    cifar = dict(type='CIFAR10', data_root='data/cifar10')
    check_dataset(cifar, 'train_dataloader')
    with pytest.raises(FileNotFoundError, match='cifar10'):
        check_dataset(dict(cifar, download=False), 'train_dataloader')


def test_remote_data_is_left_alone():
    remote = dict(data_root='s3://bucket/coco', data_prefix=dict(img='train'), ann_file='a.json')
    check_dataset(remote, 'train_dataloader')


def config(**kwargs):
    return Config(dict(model=dict(backbone=dict(type='GCPResNet', depth=18)), **kwargs))


def test_datasets_are_found_inside_wrappers(coco, tmp_path):
    coco['data_root'] = str(tmp_path / 'nowhere')
    dataset = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[coco]))
    cfg = config(train_dataloader=dict(dataset=dataset), val_dataloader=None)
    check_run(cfg, 'test')
    with pytest.raises(FileNotFoundError, match='nowhere'):
        check_run(cfg, 'train')


def test_annotations_of_the_evaluator():
    cfg = config(val_evaluator=[dict(type='CocoMetric', ann_file='nowhere.json')])
    check_run(cfg, 'test')
    with pytest.raises(FileNotFoundError, match=r'val_evaluator\.ann_file: .*nowhere\.json'):
        check_run(cfg, 'train')


def test_scope_of_the_config_holds():
    cfg = config(default_scope='mmpretrain')
    cfg.model.update(model(36, (8,), norm_cfg=dict(type='LN2d')))
    check_run(cfg, 'train')
    cfg.model.head.in_channels = 8
    with pytest.raises(ValueError, match=r'set model\.head\.in_channels=36'):
        check_run(cfg, 'train')


def test_pretrained_checkpoint_has_to_exist_for_training_alone():
    cfg = config()
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='work_dirs/none.pth')
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        check_run(cfg, 'train')
    check_run(cfg, 'test')
    for empty in ('', None):
        cfg.model.backbone.init_cfg.checkpoint = empty
        with pytest.raises(ValueError, match=r'^model\.backbone\.init_cfg\.checkpoint is empty'):
            check_run(cfg, 'train')
    cfg.model.backbone.init_cfg.checkpoint = 'torchvision://resnet18'
    check_run(cfg, 'train')


def test_load_from_has_to_exist(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    with pytest.raises(FileNotFoundError, match=r'epoch_1\.pth'):
        check_run(config(load_from=str(path)), 'test')
    torch.save({}, path)
    check_run(config(load_from=str(path)), 'test')


@pytest.mark.parametrize('name', list_models())
def test_all_configs(name):
    """None has a warning for the number of GPUs in its name, or that of its table."""
    cfg = resolve_config(name)
    gpus = re.search(r'_(\d+)xb', name)
    gpus = int(gpus[1]) if gpus else 4 if name.endswith('_coco') else 1
    found = [
        *(*check_keys(cfg, 'train'), *check_keys(cfg, 'test'), *check_schedule(cfg)),
        *(*check_classes(cfg, 'train'), *check_classes(cfg, 'test'), *check_batch(cfg, gpus)),
    ]
    assert warnings_in(found) == []
    assert errors_in(found) == []


def test_warnings_are_returned_for_the_log():
    cfg = resolve_config(CLS)
    cfg.merge_from_dict(dict(train_dataloader=None, val_dataloader=None, test_dataloader=None))
    assert check_run(cfg, 'train') == []
    cfg.train_cfg.max_epochs = 10
    (text,) = check_run(cfg, 'train')
    assert 'PolyLR ends at 5 of 10 epochs' in text
    assert check_run(cfg, 'test') == []


def test_heads_and_classes_of_a_classifier(digits):
    cfg = resolve_config(CLS)
    for split, root in (('train', digits), ('val', 'nowhere'), ('test', 'nowhere')):
        cfg[f'{split}_dataloader'].dataset.data_root = str(root)
    (found,) = check_classes(cfg, 'train')
    assert found.text == 'model.head.num_classes=10, and the data have 10 classes'
    cfg.model.head.num_classes = 12
    (text,) = warnings_in(check_classes(cfg, 'train'))
    assert 'set model.head.num_classes=10, unless' in text
    cfg.model.head.num_classes = 9
    with pytest.raises(
        ValueError,
        match=r'^model.head.num_classes=9, but train_dataloader.dataset has 10 classes: set model',
    ):
        check_classes(cfg, 'train')
    (found,) = check_classes(cfg, 'test')  # its folders are not there
    assert found.status == 'skipped'


def test_heads_and_classes_of_a_detector():
    cfg = resolve_config('mask-rcnn_r50_fpn_1x_coco')
    found = [finding.text for finding in check_classes(cfg, 'train')]
    assert found == [
        'model.roi_head.bbox_head.num_classes=80, and the data have 80 classes',
        'model.roi_head.mask_head.num_classes=80, and the data have 80 classes',
    ]
    cfg.train_dataloader.dataset.metainfo = dict(classes=('a', 'b'))
    with pytest.raises(ValueError, match=r'bbox_head\.num_classes=80, .* 2 classes'):
        check_classes(cfg, 'train')


@pytest.mark.parametrize(
    ('dataset', 'classes'),
    [
        (dict(type='ImageNet'), 1000),
        (dict(type='mmdet.CocoDataset'), 80),
        (dict(type='mmdet.CocoPanopticDataset'), None),
        (dict(type='CustomDataset', metainfo=dict(classes=['a'])), 1),
        (dict(type='CustomDataset', classes='names.txt'), None),
        (dict(type='CustomDataset', data_root='nowhere'), None),
        (dict(type='CustomDataset', ann_file='list.txt', data_root='.'), None),
    ],
)
def test_number_of_classes(dataset, classes):
    assert count_classes(dataset, 'mmpretrain') == classes


def test_classes_are_folders(tmp_path):
    for name in ('cat', 'dog'):
        (tmp_path / 'train' / name).mkdir(parents=True)
    (tmp_path / 'train/list.txt').touch()
    folder = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='train')
    assert count_classes(folder) == 2
    assert count_classes(dict(folder, with_label=False)) is None
