"""Categories of a file in COCO's format that are not metainfo.classes: what to write is said."""

import json

import pytest
from mmengine.config import Config

from gcp_mm.checks import check_config
from gcp_mm.checks.data import check_classes
from tests.helpers.checks import texts

HEADS = ('model.roi_head.bbox_head.num_classes', 'model.roi_head.mask_head.num_classes')


@pytest.fixture
def make(tmp_path):
    """Config of a detector of images with objects of two categories, and of two classes."""

    def make(*categories, metainfo=None, classes=2, split='train val test'):
        content = dict(
            images=[dict(id=1, file_name='1.png', width=32, height=24)],
            categories=[dict(id=i, name=name) for i, name in enumerate(categories, 1)],
            annotations=[
                dict(id=i, image_id=1, category_id=i, bbox=[2, 2, 9, 9], area=81, iscrowd=0)
                for i in range(1, len(categories) + 1)
            ],
        )
        (tmp_path / '1.png').touch()
        (tmp_path / 'a.json').write_text(json.dumps(content))
        files = dict(data_root=str(tmp_path), ann_file='a.json', data_prefix=dict(img=''))
        dataset = dict(type='CocoDataset', **files)
        named = dict(dataset, metainfo=dict(classes=metainfo)) if metainfo else dataset
        loaders = {
            f'{name}_dataloader': dict(dataset=named if name in split else dataset)
            for name in ('train', 'val', 'test')
        }
        head = dict(num_classes=classes)
        model = dict(roi_head=dict(bbox_head=dict(head), mask_head=dict(head)))
        loaders['val_evaluator'] = dict(type='CocoMetric', ann_file=str(tmp_path / 'a.json'))
        return Config(dict(loaders, default_scope='mmdet', model=model))

    return make


def errors(cfg, split='train', level='fast'):
    """What is wrong with the data and the classes of a config, as all checks together say it."""
    wanted = ('data', 'annotations', 'classes', 'evaluation')
    found = check_config(cfg, split, level=level)
    return [each.text for each in found if each.check in wanted and each.status == 'error']


@pytest.mark.parametrize(
    ('categories', 'classes', 'said', 'remedy'),
    [
        # COCO's 80 are the default, and its names may be among the file's
        (('bolt', 'nut'), None, 'the 80 of CocoDataset', "('bolt', 'nut')"),
        (('cat', 'dog'), None, 'the 80 of CocoDataset', "('cat', 'dog')"),
        (('bolt', 'nut'), ('nut', 'bolt'), "['nut', 'bolt']", "('bolt', 'nut')"),
        (('bolt', 'nut'), ('bolt', 'nutt'), "['bolt', 'nutt']", "('bolt', 'nut')"),
        # of three categories two are learned, and still are
        (('bolt', 'screw', 'nut'), ('nut', 'bolt'), "['nut', 'bolt']", "('bolt', 'nut')"),
        (('bolt',), ('blt',), "['blt']", "('bolt',)"),
        (('bolt',), 'bolt', "['b', 'o', 'l', 't']", "('bolt',)"),  # no tuple: its letters
    ],
)
def test_other_names(make, categories, classes, said, remedy):
    found = errors(make(*categories, metainfo=classes))
    assert len(found) == 2  # of training and validation
    for text in found:
        assert f'{list(categories)}, and metainfo.classes are {said}' in text
        assert f'set metainfo=dict(classes={remedy}) in ' in text
        assert f'num_classes={remedy.count(chr(39)) // 2} in the heads' in text
        same = sorted(categories) == sorted(classes or ())
        assert not same or f'give this file the categories {said}, in this order' in text


def test_metainfo_of_the_training_alone(make):
    (text,) = errors(make('bolt', 'nut', metainfo=('bolt', 'nut'), split='train'))
    assert "metainfo=dict(classes=('bolt', 'nut'))" in text


def test_check_data_says_the_same(make):
    found = errors(make('bolt', 'nut'), level='data')
    assert len(found) == 2  # the tests are the validation
    assert all("metainfo=dict(classes=('bolt', 'nut'))" in text for text in found)


def test_number_of_classes_is_still_compared(make):
    assert errors(make('bolt', 'nut', metainfo=('bolt', 'nut'))) == []
    found = errors(make('bolt', 'nut', metainfo=('bolt', 'nut'), classes=80))
    assert found == [
        f'{head}=80, but {split}_dataloader.dataset has 2 classes: set {head}=2'
        for split in ('train', 'val')
        for head in HEADS
    ]


def test_the_default_classes_of_an_unread_file_are_no_advice(make, monkeypatch):
    """As in all processes of a run but the first."""
    assert texts('error', check_classes, make('bolt', 'nut')) == []
    monkeypatch.setenv('RANK', '1')
    cfg = make('bolt', 'nut')
    cfg.launcher = 'pytorch'
    assert errors(cfg) == []
