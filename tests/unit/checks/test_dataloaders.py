"""Dataloaders of a run: lists that were checked are taken over, and bad data are named."""

import copy
import pickle
import shutil

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from mmpretrain.datasets import CustomDataset

from gcp_mm.checks import build_dataloader, check_config
from gcp_mm.checks.dataloaders import load_named
from gcp_mm.hub import resolve_config


@pytest.mark.parametrize('serialize', [True, False])
def test_a_list_that_was_checked_is_not_read_again(serialize, scenes, tmp_path):
    cfg = resolve_config('mask-rcnn_r18_fpn_4e_digits')
    shutil.copytree(scenes, tmp_path / 'data')
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{tmp_path}/data'
    cfg.train_dataloader.dataset.serialize_data = serialize
    cfg.model.backbone.init_cfg = None
    cfg.val_evaluator.ann_file = f'{tmp_path}/data/annotations/instances_val.json'
    loaded, before = [], copy.deepcopy(cfg.train_dataloader)
    with DefaultScope.overwrite_default_scope('mmdet'):
        stock = Runner.build_dataloader(load_named(before), seed=0).dataset
        assert not [f for f in check_config(cfg, loaded=loaded) if f.status == 'error']
        assert len(loaded) == 2  # of training and validation
        (tmp_path / 'data/annotations/instances_train.json').unlink()
        build = Runner.build_dataloader
        dataset = build_dataloader(build, cfg.train_dataloader, loaded, seed=0).dataset
    assert len(loaded) == 1
    assert cfg.train_dataloader == before
    dataset = pickle.loads(pickle.dumps(dataset))  # as workers get it
    assert repr(dataset.pipeline) == repr(stock.pipeline)
    assert vars(dataset).keys() == vars(stock).keys()
    assert dataset.metainfo == stock.metainfo
    assert len(dataset) == len(stock)
    assert all(dataset.get_data_info(k) == stock.get_data_info(k) for k in range(len(stock)))
    assert (len(dataset.data_list) == 0) == serialize


def test_wrapped_datasets_are_taken_over_too(few_digits):
    cfg = resolve_config('resnet18-gcp_1xb64-5e_digits')
    cfg.train_dataloader.dataset.data_root = cfg.val_dataloader.dataset.data_root = str(few_digits)
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=inner)
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False, batch_size=8)
    loaded = []
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        check_config(cfg, loaded=loaded)
        (_, dataset, _), validation = loaded
        loader = build_dataloader(Runner.build_dataloader, cfg.train_dataloader, loaded, seed=0)
    assert loaded == [validation]
    assert loader.dataset.dataset is dataset
    assert len(loader.dataset) == 120
    assert loader.dataset[41]['inputs'].ndim == 3


@DATASETS.register_module()
class DrawnDigits(CustomDataset):
    """A list that is drawn at random, or for which processes wait for each other."""

    def load_data_list(self):
        return super().load_data_list()[::2]


def test_lists_that_are_not_of_files_alone_are_left_to_the_run(few_digits):
    cfg = resolve_config('resnet18-gcp_1xb64-5e_digits')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.update(type='DrawnDigits', data_root=str(few_digits))
    loaded = []
    check_config(cfg, loaded=loaded)
    assert loaded == []


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


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(ann_file='/dev/null', serialize_data=False), 'holds no image to use'),
        (dict(indices=1), '1 images make no whole batch of 2, and drop_last=True'),
    ],
)
def test_dataloader_of_other_files_than_expected(changes, words, few_digits):
    dataset = dict(type='mmpretrain.CustomDataset', data_root=str(few_digits), data_prefix='train')
    sampler = dict(type='DefaultSampler', shuffle=False)
    loader = dict(batch_size=2, num_workers=0, sampler=sampler, drop_last=True)
    loader['dataset'] = {**dataset, **changes}
    with pytest.raises(ValueError, match=words):
        build_dataloader(Runner.build_dataloader, loader, seed=0)


def test_dataset_of_the_users_own():
    loader = dict(
        dataset=dict(type='ArraysOfMine'),
        **dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False)),
    )
    assert len(build_dataloader(Runner.build_dataloader, loader, seed=0)) == 2
