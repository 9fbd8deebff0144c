"""Mistakes in a config are found before a run begins."""

import pytest
import torch
from mmengine.config import Config, ConfigDict

import gcp_mm  # noqa: F401
from gcp_mm.engine import check_run
from gcp_mm.engine.preflight import check_dataset, check_head


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
    cfg.model.backbone.init_cfg.checkpoint = 'torchvision://resnet18'
    check_run(cfg, 'train')


def test_load_from_has_to_exist(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    with pytest.raises(FileNotFoundError, match=r'epoch_1\.pth'):
        check_run(config(load_from=str(path)), 'test')
    torch.save({}, path)
    check_run(config(load_from=str(path)), 'test')
