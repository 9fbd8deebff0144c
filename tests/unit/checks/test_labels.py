"""Labels of every form that a dataset of MMPretrain has: one, several, of tasks, none."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from gcp_mm.checks import run_checks
from gcp_mm.checks.dataloaders import _label_fault
from tests.helpers.checks import inspect

CLASSES = ['a', 'b', 'c']
XML = '<annotation>{}</annotation>'
OBJECT = '<object><name>{}</name><difficult>{}</difficult></object>'


@pytest.fixture
def listed(tmp_path):
    """Config of a dataset whose list has these labels."""

    def make(kind, labels, **metainfo):
        names = [f'{number}.png' for number in range(len(labels))]
        for name in names:
            Image.new('RGB', (8, 8)).save(tmp_path / name)
        pairs = zip(names, labels, strict=True)
        data_list = [dict(img_path=name, gt_label=label) for name, label in pairs]
        (tmp_path / 'a.json').write_text(json.dumps(dict(metainfo=metainfo, data_list=data_list)))
        pipeline = [dict(type='LoadImageFromFile')]
        return dict(type=kind, data_root=str(tmp_path), ann_file='a.json', pipeline=pipeline)

    return make


def test_several_labels(listed):
    labels = [[0], [0, 2], [], [1]]
    text = inspect(listed('MultiLabelDataset', labels, classes=CLASSES))
    assert text.endswith('4 images of 3 classes')
    text = inspect(listed('MultiLabelDataset', [[0], [1, 3]], classes=CLASSES), status='error')
    assert 'labels 0 to 2 by metainfo.classes, got 0 to 3' in text
    text = inspect(listed('MultiLabelDataset', [[-1], [1]], classes=CLASSES), status='error')
    assert 'from 0 on, got -1' in text


def test_no_labels(listed):
    config = listed('MultiLabelDataset', [[], []], classes=CLASSES)
    assert 'no image has a label' in inspect(config, status='error')
    assert '2 images of 3 classes' in inspect(config, split='test')


def test_labels_of_tasks(listed):
    labels = [dict(x=0, y=[1, 0]), dict(x=1)]
    text = inspect(listed('MultiTaskDataset', labels, tasks=['x', 'y']))
    assert text.endswith('a.json, 2 images')
    config = listed('MultiTaskDataset', labels, tasks=['x', 'y'])
    assert "gone.json'" in inspect(config | dict(ann_file='gone.json'), status='error')


def test_images_of_tasks_are_found_and_decoded(listed, tmp_path):
    config = listed('MultiTaskDataset', [dict(x=0), dict(x=1)], tasks=['x'])
    (tmp_path / '1.png').write_bytes(b'')
    cfg = Config(dict(default_scope='mmpretrain', train_dataloader=dict(dataset=config)))
    found = list(run_checks(cfg, level='images', workers=0))
    assert any('1.png: the file is empty' in each.text for each in found)
    (tmp_path / '1.png').unlink()
    assert '1 of 2 images do not exist' in inspect(config, status='error')


@pytest.mark.parametrize('annotated', [True, False])
def test_voc(tmp_path, annotated):
    (tmp_path / 'ImageSets/Main').mkdir(parents=True)
    (tmp_path / 'ImageSets/Main/test.txt').write_text('1\n2\n')
    for folder in ('JPEGImages', 'Annotations'):
        (tmp_path / folder).mkdir()
    for name, objects in {'1': [('cat', 0), ('dog', 1)], '2': [('dog', 0), ('cow', 0)]}.items():
        (tmp_path / f'JPEGImages/{name}.jpg').write_bytes(b'jpeg')
        text = XML.format(''.join(OBJECT.format(*each) for each in objects))
        (tmp_path / f'Annotations/{name}.xml').write_text(text)
    prefix = dict(img_path='JPEGImages', **(dict(ann_path='Annotations') if annotated else {}))
    config = dict(type='VOC', data_root=str(tmp_path), split='test', data_prefix=prefix)
    text = inspect(config | dict(test_mode=True), split='test')
    assert text.endswith('2 images of 20 classes')


def test_numbers_of_numpy():
    """As MNIST's, whose images are in memory."""
    images = [dict(gt_label=np.array(label)) for label in (0, 2, 1)]
    dataset = SimpleNamespace(data_list=images, metainfo=dict(classes=CLASSES))
    assert _label_fault(dataset, [], 'train_dataloader') == ''
    dataset.metainfo['classes'] = CLASSES[:2]
    assert '0 to 1 by metainfo.classes, got 0 to 2' in _label_fault(dataset, [], 'train_dataloader')


def test_labels_that_are_images(tmp_path):
    """Of InShop's queries: the places in the gallery of the images of the same item."""
    (tmp_path / 'Eval').mkdir()
    (tmp_path / 'Img').mkdir()
    lines = [('a', 'id1', 'gallery'), ('b', 'id1', 'gallery'), ('c', 'id2', 'gallery')]
    lines += [('d', 'id2', 'query'), ('e', 'id1', 'train')]
    (tmp_path / 'Eval/list_eval_partition.txt').write_text(
        '5\nname id status\n' + ''.join(' '.join(line) + '\n' for line in lines)
    )
    for name, *_ in lines:
        (tmp_path / 'Img' / name).write_bytes(b'jpeg')
    for split in ('query', 'train'):
        config = dict(type='InShop', data_root=str(tmp_path), split=split)
        assert inspect(config, split='test').endswith('1 images')
