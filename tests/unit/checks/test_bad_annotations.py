"""Bad annotations of objects: a run leaves them out or stops as docs/guides/bad_data.md says."""

import json
import shutil
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from gcp_mm.checks import build_dataloader, check_config, raise_errors
from gcp_mm.checks.dataloaders import check_annotations
from gcp_mm.hub import resolve_config
from tests.helpers.bad_data import REFUSED, outcome, row
from tests.helpers.checks import findings, texts

pytestmark = pytest.mark.usefixtures('short_patience')


def change_first(**values):
    return lambda content: content['annotations'][0].update(values)


def change_all(**values):
    return lambda content: [each.update(values) for each in content['annotations']] and None


# {what: (change of the file's content, what is expected, and of its message)}
LEFT_OUT = 'left out with a warning'
ANNOTATIONS = {
    'empty box': (change_first(bbox=[9, 9, 0, 0]), LEFT_OUT, 'less than a pixel'),
    'box partly outside its image': (change_first(bbox=[90, 90, 20, 20]), 'used', ''),
    'box of null': (change_first(bbox=None), REFUSED, 'annotation 1: bbox=None'),
    'no mask': (change_first(segmentation=[]), REFUSED, 'expected a mask'),
    'RLE of zeros': (
        change_first(segmentation=dict(size=[96, 96], counts=[9216])),
        REFUSED,
        'expected a mask',
    ),
    'JSON cut short': (lambda content: json.dumps(content)[:2000], REFUSED, 'JSONDecodeError'),
    'JSON of another form': (lambda content: '[]', REFUSED, 'expected an object'),
    'empty list of images': (
        lambda content: content.update(images=[], annotations=[]),
        REFUSED,
        'finds no image to use',
    ),
    'no annotation': (lambda content: content.update(annotations=[]), REFUSED, 'no image has an'),
    'categories in another order': (
        lambda content: content['categories'].reverse(),
        REFUSED,
        'labels would mean other classes',
    ),
}


@pytest.mark.parametrize('what', ANNOTATIONS)
def test_annotations(what, scenes, tmp_path, record_property):
    """Of Mask R-CNN on the digits, in training and by tools/check_data.py alike."""
    change, expected, message = ANNOTATIONS[what]
    shutil.copytree(scenes, tmp_path / 'coco')
    path = tmp_path / 'coco/annotations/instances_train.json'
    content = json.loads(path.read_text())
    number = len(content['annotations'])
    changed = change(content)
    path.write_text(changed if isinstance(changed, str) else json.dumps(content))
    cfg = resolve_config('mask-rcnn_r18-gcp-m_fpn_4e_digits')
    cfg.update(val_dataloader=None, val_evaluator=None)
    loader = cfg.train_dataloader
    loader.dataset.data_root = str(tmp_path / 'coco')
    loader.update(num_workers=1, persistent_workers=False, timeout=60)
    said = texts('warning', check_annotations, cfg)
    found = outcome(objects, cfg)
    cfg.test_dataloader = None
    checked = [each for each in check_config(cfg, level='data') if each.check == 'annotations']
    statuses = [finding.status for finding in checked]
    if expected == REFUSED:
        assert found.startswith('ValueError: ')
        assert str(path) in found or what == 'empty list of images'
        assert message in found
        assert statuses == ['error']
        observed = found.replace(f'{tmp_path}/coco/', '').split(';')[0]
    else:
        used = number - (expected == LEFT_OUT)
        assert found == used
        observed = f'{found} of {number} objects used'
        summary = f'1 of {number} annotations left out: 1 '
        assert len(said) == (expected == LEFT_OUT)
        assert statuses == (['warning', 'ok'] if expected == LEFT_OUT else ['ok'])
        if expected == LEFT_OUT:
            assert said == [checked[0].text]
            assert summary in said[0]
            assert message in said[0]
            observed += f', WARNING {said[0].partition(".json: ")[2]}'
    record_property(*row(what, expected, observed))


@pytest.fixture
def detector(scenes, tmp_path):
    """The config of a detector, and the folder of its own copy of the data."""
    root = shutil.copytree(scenes, tmp_path / 'coco')
    cfg = resolve_config('mask-rcnn_r18-gcp-m_fpn_4e_digits')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(root)
        if split != 'train':
            cfg[f'{split}_evaluator'].ann_file = str(root / 'annotations/instances_val.json')
    return cfg, root


def change_file(root, split, change):
    path = root / f'annotations/instances_{split}.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('what', ['box of null', 'categories in another order', 'no mask'])
def test_every_split_is_checked(what, split, detector):
    """At the start of a training and of a test, and by both tools that check."""
    cfg, root = detector
    change, _, message = ANNOTATIONS[what]
    assert texts('error', check_annotations, cfg) == []
    change_file(root, split, change)
    path = str(root / f'annotations/instances_{split}.json')
    for run in ('train', 'test') if split == 'val' else ('train',):
        for level in ('fast', 'data'):
            said = [found.text for found in check_config(cfg, run, level=level)]
            assert {path in text for text in said if message in text} == {True}, said


def test_objects_that_are_not_evaluated(detector):
    cfg, root = detector
    change_file(root, 'val', change_all(iscrowd=1))
    for _ in range(2):  # without a file of its own, a metric evaluates by the dataset's
        for run in ('train', 'test'):
            (text,) = texts('error', check_annotations, cfg, run)
            assert 'nothing to evaluate' in text
            assert str(root / 'annotations/instances_val.json') in text
        found = check_config(cfg, level='data')
        assert 'no image has an object' in next(e.text for e in found if e.status == 'error')
        for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
            evaluator.pop('ann_file', None)


def test_part_of_the_images_is_evaluated(detector):
    cfg, _ = detector
    cfg.val_dataloader.dataset.indices = 1
    (text,) = texts('warning', check_annotations, cfg)
    assert text.startswith('val_evaluator: ')
    assert 'lists 2 images, of which the dataloader gives 1' in text


def test_several_datasets_are_evaluated(detector):
    """By one file, which is not the other's, or each by its own."""
    cfg, root = detector
    own = cfg.val_dataloader.dataset
    train = 'annotations/instances_train.json'
    other = dict(own, ann_file=train, data_prefix=dict(img='train/'))
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[own, other])
    (text,) = texts('error', check_annotations, cfg)
    assert "is not the file of all the dataloader's datasets" in text
    metrics = [dict(cfg.val_evaluator), dict(cfg.val_evaluator, ann_file=str(root / train))]
    prefixes = dict(type='MultiDatasetsEvaluator', dataset_prefixes=['val', 'train'])
    cfg.val_evaluator = dict(prefixes, metrics=metrics)
    assert [found.status for found in findings(check_annotations, cfg)] == ['ok']


def test_other_dataset_classes(detector):
    """One that reads its file as CocoDataset does, and one that does not."""
    cfg, root = detector
    change_file(root, 'train', change_all(iscrowd=1))
    for kind, expected in (('DeepFashionDataset', 1), ('CocoPanopticDataset', 0)):
        cfg.train_dataloader.dataset.type = kind
        found = texts('error', check_annotations, cfg)
        assert len([text for text in found if 'none is left' in text]) == expected


@pytest.mark.parametrize('level', ['fast', 'data'])
def test_each_file_is_read_once(level, detector, monkeypatch):
    """By the check, and by no dataset that it builds."""
    cfg, _ = detector
    read, load = [], json.load

    def counted(file, *args, **kwargs):
        read.append(Path(file.name).name)
        return load(file, *args, **kwargs)

    monkeypatch.setattr(json, 'load', counted)
    assert texts('error', check_annotations, cfg, level=level) == []
    assert sorted(read) == ['instances_train.json', 'instances_val.json']


def objects(cfg):
    """Number of objects that the workers give to a detector in an epoch, if the run starts."""
    raise_errors(findings(check_annotations, cfg))
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = build_dataloader(Runner.build_dataloader, cfg.train_dataloader, seed=0)
        return sum(len(s.gt_instances) for batch in built for s in batch['data_samples'])
