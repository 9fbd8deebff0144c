"""Data that are meant otherwise than at first sight: no false alarm, and no mistake unseen."""

import shutil

import numpy as np
import pytest
import torch
from gcp_mm.checks.classes import count_classes
from gcp_mm.checks.disk import check_disk
from gcp_mm.checks.evaluation import check_evaluation
from gcp_mm.checks.folders import class_folders
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from gcp_mm.checks.data import check_dataset
from gcp_mm.checks.dataloaders import build_dataloader
from gcp_mm.hub import resolve_config


def folder_config(train, val, metric='Accuracy'):
    """Training and validation in class folders."""
    return Config(
        dict(
            train_dataloader=dict(dataset=dict(type='CustomDataset', data_prefix=str(train))),
            val_dataloader=dict(dataset=dict(type='CustomDataset', data_prefix=str(val))),
            val_evaluator=[dict(type=metric)],
        )
    )


@pytest.fixture
def make(tmp_path):
    def make(name, classes):
        for each in classes:
            (tmp_path / name / each).mkdir(parents=True)
        return tmp_path / name

    return make


def test_linked_class_folders(digits, tmp_path):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train/3').symlink_to(digits / 'train/3')
    dataset = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='train')
    check_dataset(dataset, 'train_dataloader', 'mmpretrain')
    assert class_folders(dataset) == ['3']


def test_data_of_another_backend_or_package_are_left_alone():
    coco = dict(type='CocoDataset', data_root='data/coco', data_prefix=dict(img='nowhere'))
    with pytest.raises(FileNotFoundError, match='nowhere'):
        check_dataset(coco, 'train_dataloader', 'mmdet')
    petrel = dict(backend='petrel', path_mapping={'data/': 's3://data/'})
    check_dataset(dict(coco, backend_args=petrel), 'train_dataloader', 'mmdet')

    class InOneFile(torch.utils.data.Dataset):
        pass

    check_dataset(dict(type=InOneFile, data_root='a.h5'), 'train_dataloader', 'mmpretrain')


@pytest.mark.parametrize('prefix', ['train', dict(img_path='train')])
def test_classes_are_folders(digits, prefix):
    dataset = dict(type='CustomDataset', data_root=str(digits), data_prefix=prefix)
    assert count_classes(dataset, 'mmpretrain') == 10
    assert class_folders(dataset) == list('0123456789')


def test_classes_of_a_list_are_not_known():
    assert count_classes(dict(type='ImageNet'), 'mmpretrain') == 1000
    assert count_classes(dict(type='ImageNet', ann_file='few.txt'), 'mmpretrain') is None
    assert count_classes(dict(type='CocoDataset', ann_file='a.json'), 'mmdet') == 80


@pytest.mark.parametrize(
    ('train', 'val'), [('abc', 'abc'), ('abc', 'ab'), ('ab', 'abc'), ('abc', '')]
)
def test_folders_with_the_labels_of_the_training(make, train, val):
    cfg = folder_config(make('train', train), make('val', val))
    (found,) = check_evaluation(cfg, 'train')
    assert found.status == 'ok'
    assert ('class folders of the training' in found.text) == bool(val)


@pytest.mark.parametrize(('train', 'val'), [('abc', 'ac'), ('abc', 'bc'), ('abc', 'xyz')])
def test_folders_with_other_labels(make, train, val):
    cfg = folder_config(make('train', train), make('val', val))
    with pytest.raises(ValueError, match=r'val_dataloader: its class folders .* missing'):
        check_evaluation(cfg, 'train')
    (found,) = check_evaluation(cfg, 'test')
    assert found.status == 'skipped'
    cfg.val_evaluator[0].type = 'RetrievalRecall'  # whose labels are of the queries alone
    assert check_evaluation(cfg, 'train')[0].status == 'ok'


def test_unlabelled_images_beside_labelled_ones(scenes, tmp_path):
    """As in semi-supervised training."""
    cfg = resolve_config('faster-rcnn_r18_fpn_4e_digits')
    labelled = dict(cfg.train_dataloader.dataset, data_root=str(scenes))
    unlabelled = dict(labelled, metainfo=dict(classes=tuple('0123456789')))
    path = tmp_path / 'none.json'
    unlabelled.update(filter_cfg=dict(filter_empty_gt=False), ann_file=str(path))
    content = Config.fromfile(scenes / 'annotations/instances_train.json')
    cut = {key: value for key, value in content.items() if key != 'annotations'}
    Config(dict(cut, annotations=[])).dump(path)
    loader = dict(cfg.train_dataloader, num_workers=0, persistent_workers=False)
    loader['collate_fn'] = dict(type='pseudo_collate')
    with DefaultScope.overwrite_default_scope('mmdet'):
        both = dict(type='ConcatDataset', datasets=[labelled, unlabelled])
        build_dataloader(Runner.build_dataloader, dict(loader, dataset=both), seed=0)
        with pytest.raises(ValueError, match='no image has an object of the classes'):
            build_dataloader(Runner.build_dataloader, dict(loader, dataset=unlabelled), seed=0)


@DATASETS.register_module()
class ArraysOfMine(torch.utils.data.Dataset):
    """Attributes by names that other datasets give another meaning."""

    def __init__(self):
        self.dataset = np.zeros((4, 3))
        self.test_mode = False

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return dict(inputs=torch.as_tensor(self.dataset[index]))


def test_dataset_of_the_users_own():
    loader = dict(
        dataset=dict(type='ArraysOfMine'),
        **dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False)),
    )
    assert len(build_dataloader(Runner.build_dataloader, loader, seed=0)) == 2


def test_disk_counts_the_checkpoints_of_this_run(tmp_path, monkeypatch):
    model = nn.Linear(1000, 1000)
    cfg = Config(
        dict(
            work_dir=str(tmp_path / 'run'),
            train_cfg=dict(max_epochs=3),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(
                checkpoint=dict(interval=1, max_keep_ckpts=1, out_dir=str(tmp_path / 'out'))
            ),
        )
    )
    usage = shutil.disk_usage(tmp_path)._replace(free=5_000_000)  # of 4 MB checkpoints
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
    folder = tmp_path / 'out/run'
    folder.mkdir(parents=True)
    (folder / 'of_another.pth').write_bytes(bytes(4_004_000))
    with pytest.raises(ValueError, match='make room'):
        check_disk(cfg, model)
    (folder / 'epoch_1.pth').write_bytes(bytes(4_004_000))
    assert check_disk(cfg, model)[0].status == 'ok'
    assert check_disk(cfg, dict(type='Linear'))[0].status == 'skipped'
