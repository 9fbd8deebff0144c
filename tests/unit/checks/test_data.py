"""Datasets that are absent, of other classes or other labels are told, others are left alone."""

import json
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from gcp_mm.checks import build_dataloader, check_config
from gcp_mm.checks.data import (
    build_dataset,
    check_classes,
    check_data,
    check_evaluation,
    count_classes,
)
from gcp_mm.checks.dataloaders import check_annotations
from gcp_mm.checks.keys import check_keys
from gcp_mm.checks.schedule import check_batch, check_schedule
from gcp_mm.hub import list_models, resolve_config
from tests.helpers.checks import findings, inspect, texts, tried
from tests.helpers.runs import CLS


@pytest.fixture
def coco(tmp_path):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train/1.jpg').touch()
    image = dict(id=1, file_name='1.jpg', width=9, height=9)
    content = dict(images=[image], categories=[dict(id=1, name='cat')])
    (tmp_path / 'instances.json').write_text(json.dumps(content))
    return dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        data_prefix=dict(img='train'),
        ann_file='instances.json',
        metainfo=dict(classes=('cat',)),
    )


def train_on(dataset, scope='mmdet'):
    return Config(dict(default_scope=scope, train_dataloader=dict(dataset=dataset)))


def wrong(cfg, split='train'):
    """Errors of the data of a config."""
    found = tried(cfg, check_data, check_annotations, split=split)[1]
    return [e.text for each in found.values() for e in each if e.status == 'error']


def test_dataset_that_is_there(coco, digits, tmp_path):
    assert wrong(train_on(coco)) == []
    (tmp_path / 'linked').mkdir()
    (tmp_path / 'linked/3').symlink_to(digits / 'train/3')
    linked = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='linked')
    assert wrong(train_on(linked, 'mmpretrain')) == []


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(ann_file='none.json'), r"train_dataloader\.dataset\.ann_file: .*none\.json' does no"),
        (dict(ann_file='empty.json'), r"empty\.json' is empty"),
        (dict(data_prefix=dict(img='none')), r'train_dataloader\.dataset: .*none.*data_root'),
        (dict(data_prefix=dict(img='train', seg='none')), r"the folder .*none' does not exist"),
        (dict(data_prefix=dict(img='folders')), r'least 1 of 1 images do not .*folders/1\.jpg'),
        (
            dict(type='ImageNet', split='val', data_prefix='', ann_file=''),
            r"/val': .*subfolders \(0\)",
        ),
        (dict(type='ImageNet', data_prefix='none', ann_file=''), "/none': FileNotFoundError"),
        (dict(type='CIFAR10', data_prefix='none', ann_file='', download=False), 'none'),
        (dict(type='ImageNet', split='zzz'), 'ImageNet cannot be built: .*train.*data_root'),
    ],
)
def test_dataset_that_is_not_there(coco, tmp_path, changes, message):
    (tmp_path / 'folders/n01440764').mkdir(parents=True)
    (tmp_path / 'val').mkdir()
    (tmp_path / 'empty.json').touch()
    config = {**coco, **changes}
    if config['type'] != 'CocoDataset':
        config.pop('metainfo')
    if config['type'] == 'CIFAR10':
        config.pop('ann_file')
    scope = 'mmdet' if config['type'] == 'CocoDataset' else 'mmpretrain'
    (text,) = wrong(train_on(config, scope))
    assert re.search(message, text)


def test_data_that_need_not_be_here(coco):
    coco['data_prefix'] = dict(img='nowhere')
    petrel = dict(backend='petrel', path_mapping={'data/': 's3://data/'})
    assert wrong(train_on(dict(coco, backend_args=petrel))) == []
    remote, cifar = dict(coco, data_root='s3://bucket/coco'), dict(type='CIFAR10', data_root='data')
    assert wrong(train_on(remote)) == wrong(train_on(cifar, 'mmpretrain')) == []
    assert 'remote' in inspect(remote, 'mmdet', 'skipped')
    assert 'downloaded' in inspect(cifar, status='skipped')
    assert findings(check_data, config())[0].status == 'skipped'  # it names no files

    class InOneFile(torch.utils.data.Dataset):
        pass

    assert wrong(train_on(dict(type=InOneFile, data_root='a.h5'), 'mmpretrain')) == []


def config(**kwargs):
    model = dict(backbone=dict(type='GCPResNet', depth=18))
    return Config(dict(default_scope='mmdet', model=model, **kwargs))


def test_every_part_of_a_config_is_checked(digits):
    folders = dict(type='CustomDataset', data_root=str(digits), data_prefix='val')
    other = dict(folders, data_prefix='nowhere')
    wrapped = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[other] * 2))
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            train_dataloader=dict(dataset=wrapped),
            val_dataloader=dict(dataset=folders),
            test_dataloader=dict(dataset=folders),
            val_evaluator=[dict(type='Accuracy'), dict(type='CocoMetric', ann_file='nowhere.json')],
            test_evaluator=dict(type='Accuracy'),
        )
    )
    assert texts('error', check_data, cfg, 'test') == []
    found = check_config(cfg, level='data')
    assert [(finding.check, finding.status) for finding in found] == [
        *[('data', 'error')] * 3,
        *[('annotations', 'ok')] * 2,
    ]
    train, again, evaluator, val, test = (finding.text for finding in found)
    assert train == again
    assert re.search(r'train_dataloader.*nowhere', train)
    assert re.search(r'^val_evaluator\.ann_file: .*nowhere\.json', evaluator)
    for split, text in (('val', val), ('test', test)):
        assert text.startswith(f'{split}_dataloader: CustomDataset in {digits}/val, ')
        assert text.endswith(', 360 images of 10 classes')
    assert check_config(cfg, level='images')[-1].status == 'skipped'
    cfg.pop('test_evaluator')
    assert not [f for f in check_config(cfg, level='data') if 'test_dataloader' in f.text]


def test_dataset_with_transforms_of_its_own(digits, tmp_path):
    (tmp_path / 'c/fog').mkdir(parents=True)
    (tmp_path / 'c/fog/3').symlink_to(digits / 'val')
    config = dict(type='ImageNetC', data_root=str(tmp_path / 'c'), data_prefix='fog/3')
    assert '10 classes' in inspect(config)


@pytest.mark.parametrize('name', list_models())
def test_all_configs(name):
    """None has a warning for the number of GPUs in its name, or that of its table."""
    cfg = resolve_config(name)
    gpus = re.search(r'_(\d+)xb', name)
    gpus = int(gpus[1]) if gpus else 4 if name.endswith('_coco') else 1
    for check in (check_keys, check_classes, check_schedule, check_batch):
        for split in ('train', 'test') if check in (check_keys, check_classes) else ('train',):
            found = findings(check, cfg, split, gpus)
            assert {finding.status for finding in found} <= {'ok', 'skipped'}, found


def test_heads_and_classes_of_a_classifier(digits):
    cfg = resolve_config(CLS)
    for split, root in (('train', digits), ('val', 'nowhere'), ('test', 'nowhere')):
        cfg[f'{split}_dataloader'].dataset.data_root = str(root)
    assert texts('ok', check_classes, cfg) == [
        'model.head.num_classes=10, and the data have 10 classes'
    ]
    cfg.model.head.num_classes = 12
    (text,) = texts('warning', check_classes, cfg)
    assert 'set model.head.num_classes=10, unless' in text
    cfg.model.head.num_classes = 9
    (text,) = texts('error', check_classes, cfg)
    assert text.startswith(
        'model.head.num_classes=9, but train_dataloader.dataset has 10 classes: set model'
    )
    (found,) = findings(check_classes, cfg, 'test')  # its folders are not there
    assert found.status == 'skipped'


@pytest.mark.parametrize(
    ('dataset', 'classes'),
    [
        (dict(type='ImageNet', data_root='.'), 1000),
        (dict(type='ImageNet', ann_file='few.txt'), None),  # which may be of fewer classes
        (dict(type='mmdet.CocoDataset'), 80),
        (dict(type='mmdet.CocoPanopticDataset', data_prefix=dict(img='', ann='', seg='')), None),
        (dict(type='CustomDataset', metainfo=dict(classes=['a']), data_root='.'), 1),
        (dict(type='CustomDataset', classes='names.txt', data_root='.'), 2),
        (dict(type='CustomDataset', data_root='nowhere'), None),
        (dict(type='CustomDataset', ann_file='list.txt', data_root='.'), None),
        (dict(type='CustomDataset', data_root='.', data_prefix='train'), 3),
        (dict(type='CustomDataset', data_root='.', data_prefix=dict(img_path='train')), 3),
        (dict(type='CustomDataset', data_root='.', data_prefix='train', with_label=False), None),
    ],
)
def test_number_of_classes(dataset, classes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('cat', 'dog', 'eel'):
        (tmp_path / 'train' / name).mkdir(parents=True)
    (tmp_path / 'train/list.txt').touch()
    (tmp_path / 'names.txt').write_text('a\nb\n')
    built = build_dataset(dataset, 'mmpretrain', lazy_init=True)
    assert count_classes(dataset, built, 'mmpretrain') == classes


def folder_config(root, train, val):
    """Training and validation in class folders."""
    for split, classes in (('train', train), ('val', val)):
        (root / split).mkdir()
        for each in classes:
            (root / split / each).mkdir()
            (root / split / each / '1.png').touch()
    return Config(
        dict(
            default_scope='mmpretrain',
            train_dataloader=dict(
                dataset=dict(type='CustomDataset', data_prefix=str(root / 'train'))
            ),
            val_dataloader=dict(dataset=dict(type='CustomDataset', data_prefix=str(root / 'val'))),
            val_evaluator=[dict(type='Accuracy')],
        )
    )


@pytest.mark.parametrize(
    ('train', 'val', 'status'),
    [
        *(('abc', 'abc', 'ok'), ('abc', 'ab', 'ok'), ('ab', 'abc', 'ok'), ('abc', '', 'ok')),
        *(('abc', 'ac', 'error'), ('abc', 'bc', 'error'), ('abc', 'xyz', 'error')),
    ],
)
def test_folders_and_the_labels_of_the_training(tmp_path, train, val, status):
    cfg = folder_config(tmp_path, train, val)
    (found,) = findings(check_evaluation, cfg)
    assert found.status == status
    words = "label [01] is '.', in train_dataloader" if status == 'error' else 'of the training'
    assert bool(re.search(words, found.text)) == bool(val)
    assert findings(check_evaluation, cfg, 'test')[0].status == 'skipped'
    cfg.val_evaluator[0].type = 'RetrievalRecall'  # whose labels are of the queries alone
    assert findings(check_evaluation, cfg)[0].status == 'ok'


@pytest.mark.parametrize('kind', ['CocoDataset', 'VOCDataset'])
def test_classes_of_a_detector_in_another_order(kind, tmp_path):
    """The file agrees with them in each split, and its labels mean others."""
    image = dict(id=1, file_name='1.jpg', width=9, height=9)
    (tmp_path / 'Annotations').mkdir()
    (tmp_path / 'Annotations/1.xml').write_text(
        '<annotation><size><width>9</width><height>9</height></size></annotation>'
    )
    datasets = []
    for names in ('ab', 'ba'):
        categories = [dict(id=number, name=name) for number, name in enumerate(names)]
        content = json.dumps(dict(images=[image], categories=categories))
        (tmp_path / names).write_text('1' if kind == 'VOCDataset' else content)
        dataset = dict(type=kind, data_root=str(tmp_path), ann_file=names)
        dataset.update(data_prefix=dict(img='', sub_data_root=''))
        dataset.update(metainfo=dict(classes=tuple(names)))
        datasets.append(dataset)
    train, val = datasets
    cfg = config(train_dataloader=dict(dataset=train), val_dataloader=dict(dataset=train))
    assert findings(check_evaluation, cfg)[0].status == 'ok'
    cfg.merge_from_dict(dict(val_dataloader=dict(dataset=val), test_dataloader=dict(dataset=val)))
    for split in ('train', 'test'):
        (text,) = texts('error', check_evaluation, cfg, split)
        assert "label 0 is 'b', in train_dataloader 'a'" in text
    fewer = dict(train, metainfo=dict(classes=('a',)))
    short = config(train_dataloader=dict(dataset=train), val_dataloader=dict(dataset=fewer))
    (text,) = texts('error', check_evaluation, short)
    assert "label 1 is None, in train_dataloader 'b'" in text
    cfg.model.language_model = dict(type='BertModel')
    assert findings(check_evaluation, cfg)[0].status == 'ok'


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
@pytest.mark.parametrize(
    ('bad', 'words'),
    [
        ('a 0\nb 3\n', 'labels 0 to 2 by model.head.num_classes, got 0 to 3'),
        ('a 0\nc 1\nd 1\n', "2 of 3 images do not exist, the first is '{}/c'"),
        ('\n', 'cannot read its list of images'),
    ],
)
def test_lists_of_images(split, bad, words, tmp_path):
    for name in 'ab':
        (tmp_path / name).touch()
    (tmp_path / 'good.txt').write_text('a 0\nb 2\n')
    (tmp_path / 'bad.txt').write_text(bad)
    data = dict(type='CustomDataset', data_root=str(tmp_path), ann_file='good.txt')
    names = ('train', 'val', 'test')
    loaders = {f'{name}_dataloader': dict(dataset=dict(data)) for name in names}
    head = dict(type='LinearClsHead', num_classes=3)
    cfg = Config(dict(loaders, default_scope='mmpretrain', model=dict(head=head)))
    run = 'test' if split == 'test' else 'train'
    assert [found.status for found in findings(check_annotations, cfg, run)] == ['ok']
    cfg[f'{split}_dataloader'].dataset.ann_file = 'bad.txt'
    (text,) = wrong(cfg, run)
    assert text.startswith(f'{split}_dataloader.dataset: ')
    assert words.format(tmp_path) in text


@pytest.mark.parametrize(
    'files', [('a/1.png',), ('a/1.png', 'a/2.tiff', 'a/3.WebP', 'b/x.txt', '4.jpg')]
)
def test_files_beside_those_that_are_used(files, tmp_path):
    for file in (*files, 'b/1.jpg', 'b/.DS_Store', 'made-with.json'):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    data = dict(type='CustomDataset', data_root=str(tmp_path))
    loaders = dict(train_dataloader=dict(dataset=data), val_dataloader=dict(dataset=data))
    cfg = Config(dict(loaders, default_scope='mmpretrain'))
    found = texts('warning', check_data, cfg)
    assert len(found) == 2 * (len(files) > 1)
    for text, split in zip(found, ('train', 'val'), strict=False):
        assert text.startswith(f"{split}_dataloader.dataset: files in '{tmp_path}")
        assert '1 .jpg outside the class folders' in text
        assert all(f'1 {suffix}' in text for suffix in ('.tiff', '.webp', '.txt'))
        assert f'{split}_dataloader.dataset.extensions' in text
        assert "'.tiff', '.webp')" in text
    data['extensions'] = ('.png', '.jpg', '.tiff', '.webp', '.txt')
    cfg.train_dataloader.dataset = data
    cfg.val_dataloader = None
    assert [t for t in texts('warning', check_data, cfg) if 'extensions' in t] == []


def test_unlabeled_images_beside_labeled_ones(scenes, tmp_path, log):
    """As in semi-supervised training."""
    cfg = resolve_config('faster-rcnn_r18_fpn_4e_digits')
    labeled = dict(cfg.train_dataloader.dataset, data_root=str(scenes))
    unlabeled = dict(labeled, metainfo=dict(classes=tuple('0123456789')))
    path = tmp_path / 'none.json'
    unlabeled.update(filter_cfg=dict(filter_empty_gt=False), ann_file=str(path))
    content = Config.fromfile(scenes / 'annotations/instances_train.json')
    cut = {key: value for key, value in content.items() if key != 'annotations'}
    Config(dict(cut, annotations=[])).dump(path)
    loader = dict(cfg.train_dataloader, num_workers=0, persistent_workers=False)
    loader['collate_fn'] = dict(type='pseudo_collate')
    with DefaultScope.overwrite_default_scope('mmdet'):
        both = dict(type='ConcatDataset', datasets=[labeled, unlabeled])
        build_dataloader(Runner.build_dataloader, dict(loader, dataset=both), seed=0)
        with pytest.raises(ValueError, match='no image has an object of the classes'):
            build_dataloader(Runner.build_dataloader, dict(loader, dataset=unlabeled), seed=0)
        assert 'no image has an object' not in log()
        unlabeled.update(test_mode=True)
        build_dataloader(Runner.build_dataloader, dict(loader, dataset=unlabeled), seed=0)
        assert 'no image has an object of the classes' in log()


def test_a_list_that_cannot_be_read_is_named(tmp_path):
    """VOC's parser raises what no tool expects of a user's mistake."""
    (tmp_path / 'VOC2007/Annotations').mkdir(parents=True)
    (tmp_path / 'VOC2007/Annotations/1.xml').write_text('<annotation><object>')
    (tmp_path / 'list.txt').write_text('1\n')
    dataset = dict(type='VOCDataset', data_root=str(tmp_path), ann_file='list.txt')
    dataset['data_prefix'] = dict(sub_data_root='VOC2007/')
    (text,) = wrong(train_on(dataset))
    assert re.search(r'VOCDataset cannot read its list of images, .*list\.txt', text)
