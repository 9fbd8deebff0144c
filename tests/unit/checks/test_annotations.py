"""Annotation files in COCO's format: faults are named, and what is left out is counted."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gcp_mm.checks.annotations import inspect_annotations, inspect_evaluator

POLYGON = [[2, 2, 20, 2, 20, 20]]
LOAD = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
# What each value of a file is replaced by
OTHER = (None, 'a', [], [[1]], 7, 0.5, 10**400, float('nan'), {})


@pytest.fixture(autouse=True)
def mmdet():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture
def content():
    """Two images with two objects, of which one is run-length encoded, and a crowd."""
    common = dict(bbox=[2, 2, 18, 18], area=324, iscrowd=0)
    rle = dict(size=[24, 32], counts=[48, 100, 620])
    file = dict(
        images=[dict(id=i, file_name=f'{i}.png', width=32, height=24) for i in (1, 2)],
        categories=[dict(id=i, name=name) for i, name in ((5, 'cat'), (3, 'dog'))],
        annotations=[
            dict(common, id=1, image_id=1, category_id=5, segmentation=POLYGON),
            dict(common, id=2, image_id=2, category_id=3, segmentation=rle),
            dict(common, id=3, image_id=2, category_id=3, segmentation=rle, iscrowd=1),
        ],
    )
    return json.loads(json.dumps(file))  # nothing is shared


@pytest.fixture
def dataset(tmp_path):
    """Of a file that is still to be written."""
    config = dict(type='CocoDataset', ann_file=f'{tmp_path}/a.json', data_prefix=dict(img=''))
    config.update(metainfo=dict(classes=('cat', 'dog')))
    return DATASETS.build(dict(config, serialize_data=False, lazy_init=True))


@pytest.fixture
def check(dataset):
    """Findings of a file's content for a dataset or, if `metric` is given, an evaluation."""

    def inspect(content, metric=None, step=LOAD, **options):
        Path(dataset.ann_file).write_text(json.dumps(content))
        read, contents, where = copy.copy(dataset), {}, 'val_evaluator'
        vars(read).update(options)
        found = inspect_annotations(read, [step], contents, metric is not None)
        if metric is not None and not found:
            metric = dict(type='CocoMetric', ann_file=dataset.ann_file) | metric
            found += inspect_evaluator(metric, where, [read], contents)
        return found

    return inspect


def errors(findings):
    return [finding.text for finding in findings if finding.status == 'error']


def places(node, path=()):
    """Paths of all values in a file's content."""
    if path:
        yield path
    items = node.items() if isinstance(node, dict) else ()
    items = enumerate(node) if isinstance(node, list) else items
    for key, value in items:
        yield from places(value, (*path, key))


def replaced(content, place, value):
    content = copy.deepcopy(content)
    node = content
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    return content


def use(dataset, evaluate):
    """Let MMDetection load the objects, or pycocotools evaluate a box and a mask by them."""
    if evaluate:
        truth = COCO(dataset.ann_file)
        image = next(iter(truth.imgs.values()))
        shape = int(image['height']), int(image['width'])
        found = dict(bbox=[2, 2, 18, 18], score=1, image_id=image['id'])
        found['segmentation'] = coco_mask.encode(np.ones(shape, np.uint8, order='F'))
        found['category_id'] = truth.getCatIds(['cat'])[0]
        for kind in ('bbox', 'segm'):
            evaluation = COCOeval(truth, truth.loadRes([dict(found)]), kind)
            evaluation.params.iouThrs, evaluation.params.maxDets = [0.5], [1]
            evaluation.evaluate()
            evaluation.accumulate()
            assert evaluation.eval['precision'].max() >= 0
        return
    dataset = copy.copy(dataset)
    dataset.full_init()
    load = TRANSFORMS.build(LOAD)
    for info in map(dataset.get_data_info, range(len(dataset))):
        found = load(dict(info, ori_shape=(24, 32)))
        assert np.isfinite(found['gt_bboxes'].tensor.numpy()).all()
        assert set(found['gt_bboxes_labels']) <= {0, 1}


def test_valid_file(content, dataset, check):
    assert [finding.text for finding in check(content)] == [
        f'{dataset.ann_file}: 1 of 3 annotations left out: 1 with iscrowd=1'
    ]
    assert check(content, dict(metric=['bbox', 'segm'])) == []
    use(dataset, evaluate=True)


@pytest.mark.parametrize('metric', [None, dict(metric=['bbox', 'segm'])])
@pytest.mark.parametrize('part', ['images', 'categories', 'annotations', None])
def test_every_value_replaced(part, metric, content, dataset, check, capsys):
    """Each is an error that names the file, or the file is used as it says."""
    named = 0
    for place in places(content):
        for value in OTHER if place[0] == part or (part is None and len(place) == 1) else ():
            found = errors(check(replaced(content, place, value), metric))
            assert all(dataset.ann_file in text for text in found)
            named += len(found)
            if not found:
                use(dataset, metric is not None)
    capsys.readouterr()
    assert named


@pytest.mark.parametrize(
    ('place', 'value', 'message'),
    [
        (('annotations', 1, 'bbox', 2), 'a', "annotation 2: bbox=[2, 2, 'a', 18]"),
        (('annotations', 1, 'segmentation', 'counts', 0), -48, 'annotation 2: segmentation='),
        (('annotations', 1, 'image_id'), '2', "annotation 2: image_id='2'"),
        (('annotations', 1, 'id'), 1, 'annotation id 1 stands for several annotations'),
        (('images', 1, 'id'), 'b', 'some ids of images are strings'),
        (('categories', 1, 'name'), 'eel', "its categories are ['cat', 'eel']"),
        (('categories', 1, 'name'), 'cat', "2 categories have the name 'cat'"),
    ],
)
def test_fault_is_named(place, value, message, content, dataset, check):
    (text,) = errors(check(replaced(content, place, value)))
    assert text.startswith(repr(dataset.ann_file))
    assert message in text


def test_missing_keys_are_named(content, check):
    del content['annotations'][1]['bbox'], content['annotations'][2]['bbox']
    (text,) = errors(check(content))
    assert 'annotation 2: has no bbox' in text
    assert '1 more' in text


def change_all(**values):
    return lambda content: [each.update(values) for each in content['annotations']]


def two_polygons_of_points(content):
    content['annotations'][0]['segmentation'] = [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7]]


# Reasons, of three annotations that without a change are one left out with iscrowd=1
@pytest.mark.parametrize(
    ('change', 'options', 'reasons'),
    [
        (None, dict(filter_cfg=dict(min_size=32)), {'filter_cfg': 3}),
        (None, dict(_indices=[0]), {'filter_cfg': 2}),
        (None, dict(filter_cfg=dict(filter_empty_gt=True)), {'iscrowd=1': 1}),
        (None, dict(step=dict(LOAD, poly2mask=False)), {'iscrowd=1': 1, 'poly2mask=False': 1}),
        (None, dict(step=dict(LOAD, with_mask=False)), {'iscrowd=1': 1}),
        (change_all(iscrowd=1), {}, {'iscrowd=1': 3}),
        (change_all(ignore=1), {}, {"'ignore'": 3}),
        (change_all(area=0), {}, {'no area': 3}),
        (change_all(bbox=[2, 2, 0.5, 9]), {}, {'less than a pixel': 3}),
        (change_all(bbox=[40, 2, 9, 9]), {}, {'outside its image': 3}),
        (change_all(category_id=9), {}, {'no class': 3}),
        (
            change_all(category_id=9),
            dict(filter_cfg=dict(filter_empty_gt=True)),
            {'no class': 3},
        ),
        (two_polygons_of_points, {}, {'iscrowd=1': 1, '3 points': 1}),
    ],
)
def test_what_is_left_out_is_counted(change, options, reasons, content, dataset, check):
    if change:
        change(content)
    (found,) = check(content, **options)
    number = sum(reasons.values())
    assert found.status == ('error' if number == 3 else 'warning')
    assert f'{dataset.ann_file}: {number} of 3 annotations left out: ' in found.text
    for reason, number in reasons.items():
        assert any(
            part.startswith(f'{number} ') and reason in part
            for part in found.text.partition('left out: ')[2].split(', ')
        ), found.text


@pytest.mark.parametrize('part', ['categories', 'images', 'annotations'])
def test_order_within_a_file(part, content, check):
    content[part].reverse()
    for metric in (None, {}):
        found = errors(check(content, metric))
        assert len(found) == (part == 'categories')
        assert all("['dog', 'cat']" in text and "['cat', 'dog']" in text for text in found)


@pytest.mark.parametrize('change', [change_all(iscrowd=1), lambda c: c.update(annotations=[])])
def test_nothing_to_evaluate(change, content, check):
    change(content)
    (text,) = errors(check(content, {}))
    assert 'nothing to evaluate' in text
    assert check(content, dict(format_only=True, outfile_prefix='x')) == []


def test_iscrowd_is_needed_where_pycocotools_evaluates(content, check):
    del content['annotations'][0]['iscrowd']
    assert errors(check(content)) == []
    (text,) = errors(check(content, {}))
    assert 'annotation 1: has no iscrowd' in text


def test_mask_that_pycocotools_takes_for_a_box(content, check):
    content['annotations'][0]['segmentation'] = [[1, 2, 3, 4]]
    assert check(content, dict(metric='bbox')) == []
    (text,) = errors(check(content, dict(metric=['segm'])))
    assert 'annotation 1: segmentation=[[1, 2, 3, 4]]' in text


def test_another_file_for_the_evaluator(content, dataset, check, tmp_path):
    (text,) = errors(check(content, dict(ann_file=f'{tmp_path}/b.json')))
    assert text.startswith(f"val_evaluator.ann_file='{tmp_path}/b.json' is not the file of ")
    assert dataset.ann_file in text


def test_annotation_zero_is_no_match_for_pycocotools(content, check):
    content['annotations'][0]['id'] = 0
    assert errors(check(content)) == []
    (found,) = check(content, {})
    assert found.status == 'warning'
    assert 'annotation 0' in found.text
