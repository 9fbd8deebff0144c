"""tools/check_data.py finds what is there, and what is not, as the frameworks would read it."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from mmengine.config import ConfigDict

from gcp_mm.checks import check_config
from tests.helpers.checks import inspect
from tests.helpers.runs import CLS, ROOT


@pytest.fixture
def folders(digits, tmp_path):
    """A data set in class folders, and the config of it."""
    for digit in '012':
        shutil.copytree(digits / 'val' / digit, tmp_path / 'val' / digit)
    return dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='val')


@pytest.fixture
def coco(scenes, tmp_path):
    """Scenes in files and with classes of COCO's names, and the config of a dataset of them."""
    from mmdet.datasets import CocoDataset

    for split in ('train', 'val'):
        shutil.copytree(scenes / split, tmp_path / f'{split}2017')
        annotations = tmp_path / f'annotations/instances_{split}2017.json'
        annotations.parent.mkdir(exist_ok=True)
        content = json.loads((scenes / f'annotations/instances_{split}.json').read_text())
        content['categories'] = [
            dict(id=i, name=name) for i, name in enumerate(CocoDataset.METAINFO['classes'])
        ]
        annotations.write_text(json.dumps(content))
    return dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=True),
    )


def imagenet(root, files, labels):
    """Validation images in one folder, and MMPretrain's list of them."""
    for file in files:
        (root / 'val').mkdir(exist_ok=True, parents=True)
        (root / 'val' / file).write_bytes(b'jpeg')
    (root / 'meta').mkdir()
    (root / 'meta/val.txt').write_text(''.join(f'{file} {label}\n' for file, label in labels))
    return dict(type='ImageNet', data_root=str(root), split='val')


def test_class_folders(folders, tmp_path):
    number = len(list(tmp_path.glob('val/*/*.png')))
    found = inspect(folders)
    assert (
        found == f'train_dataloader: CustomDataset in {tmp_path}/val, {number} images of 3 classes'
    )


def test_imagenet_list(tmp_path):
    config = imagenet(tmp_path, 'ab', [('a', 0), ('b', 999)])
    found = inspect(config)
    assert found.endswith(
        f'ImageNet in {tmp_path}/val, {tmp_path}/meta/val.txt, 2 images of 1,000 classes'
    )


def test_imagenet_of_too_few_classes(tmp_path):
    (tmp_path / 'val/n01440764').mkdir(parents=True)
    (tmp_path / 'val/n01440764/a.JPEG').touch()
    text = inspect(dict(type='ImageNet', data_root=str(tmp_path), split='val'), status='error')
    assert re.search(r'number of subfolders \(1\).*classes \(1000\).*docs/guides/data', text, re.S)


def test_detection(coco, tmp_path):
    content = json.loads((tmp_path / coco['ann_file']).read_text())
    assert inspect(coco, 'mmdet') == (
        f'train_dataloader: CocoDataset in {tmp_path}/train2017/, {tmp_path}/{coco["ann_file"]}, '
        f'{len(content["images"])} images of 80 classes'
    )


def test_detection_without_objects(coco, tmp_path):
    path = tmp_path / coco['ann_file']
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(annotations=[])))
    coco.update(filter_cfg=None)
    assert re.search(r"an object of .*'zebra'", inspect(coco, 'mmdet', 'error'))


def test_data_that_need_not_be_here():
    cifar = dict(type='CIFAR10', data_root='nowhere')
    assert 'downloaded' in inspect(cifar, status='skipped')
    remote = dict(type='CocoDataset', data_root='s3://bucket', ann_file='a', data_prefix='b')
    assert 'remote' in inspect(remote, 'mmdet', 'skipped')


def test_every_part_of_a_config_is_checked(folders):
    other = dict(folders, data_prefix='nowhere')
    wrapped = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[other] * 2))
    cfg = ConfigDict(
        default_scope='mmpretrain',
        train_dataloader=dict(dataset=wrapped),
        val_dataloader=dict(dataset=folders),
        test_dataloader=dict(dataset=folders),
        val_evaluator=[dict(type='Accuracy'), dict(type='CocoMetric', ann_file='nowhere.json')],
        test_evaluator=dict(type='Accuracy'),
    )
    found = check_config(cfg, level='data')
    assert [(finding.check, finding.status) for finding in found] == [
        *[('data', 'error')] * 3,
        *[('annotations', 'ok')] * 2,
    ]
    train, again, evaluator, val, test = (finding.text for finding in found)
    assert train == again
    assert re.search(r'train_dataloader.*nowhere', train)
    assert re.search(r'val_evaluator\.ann_file: .*nowhere\.json', evaluator)
    for split, text in (('val', val), ('test', test)):
        assert re.search(rf'{split}_dataloader: .* 3 classes', text)
    assert check_config(cfg, level='images')[-1].status == 'skipped'
    cfg.pop('test_evaluator')
    assert not [f for f in check_config(cfg, level='data') if 'test_dataloader' in f.text]


def test_dataset_with_transforms_of_its_own(digits, tmp_path):
    (tmp_path / 'c/fog').mkdir(parents=True)
    (tmp_path / 'c/fog/3').symlink_to(digits / 'val')
    config = dict(type='ImageNetC', data_root=str(tmp_path / 'c'), data_prefix='fog/3')
    assert '10 classes' in inspect(config)


def test_command(call_tool, digits, tmp_path, capsys):
    arguments = ('tools/check_data.py', CLS, '--cfg-options')
    roots = [f'{split}_dataloader.dataset.data_root={digits}' for split in ('val', 'test')]
    with pytest.raises(SystemExit) as end:
        call_tool(*arguments, *roots, f'train_dataloader.dataset.data_root={digits}')
    assert end.value.code == 0
    with pytest.raises(SystemExit) as end:
        call_tool(*arguments, *roots, f'train_dataloader.dataset.data_root={tmp_path}')
    assert end.value.code == 1
    output = capsys.readouterr().out
    assert '1,437 images of 10 classes' in output
    assert f"cannot read its list of images, '{tmp_path}/train'" in output


def test_commands_of_the_page(run_tool, coco, tmp_path):
    """The page's command for a detector, at another place; and its Python parses."""
    page = (ROOT / 'docs/guides/data.md').read_text()
    for program in re.findall(r'python -c "\n(.*?)"', page, re.S):
        compile(program, 'docs/guides/data.md', 'exec')
    (command,) = re.findall(r'COCO=/datasets/coco\n(.*?)```', page, re.S)
    script = tmp_path / 'page.sh'
    script.write_text(f'COCO={tmp_path}\n{command}')
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    done = run_tool('bash', script, PATH=path)
    assert f'CocoDataset in {tmp_path}/train2017/' in done.stdout, done.stdout
    assert 'ERROR' not in done.stdout
    assert done.returncode == 0
