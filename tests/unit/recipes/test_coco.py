"""Files in COCO's format are found with their images, split, and refused with the reason."""

import json
import re

import pytest
from PIL import Image

from gcp_mm.recipes.coco import find_objects


def write(root, name='annotations/instances_train.json', folder='train', number=5, **changes):
    """A file of `number` images with an object each, of three categories, one of them unused."""
    images = [dict(id=i, file_name=f'{i}.png', width=8, height=8) for i in range(1, number + 1)]
    annotations = [
        dict(
            id=i['id'],
            image_id=i['id'],
            category_id=7 + i['id'] % 2,
            bbox=[1, 1, 4, 4],
            area=16,
            iscrowd=0,
            segmentation=[[1, 1, 5, 1, 5, 5]],
        )
        for i in images
    ]
    for key, value in changes.items():
        for annotation in annotations:
            annotation[key] = value
            if value is None:
                del annotation[key]
    categories = [dict(id=i, name=name) for i, name in ((9, 'none'), (8, 'dog'), (7, 'cat'))]
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    (root / folder).mkdir(parents=True, exist_ok=True)
    for image in images:
        Image.new('RGB', (8, 8)).save(root / folder / image['file_name'])
    return path


LAYOUTS = [
    ('annotations/instances_train2017.json', 'train2017', 'instances_val2017.json', 'val2017'),
    ('annotations/train.json', 'images/train', 'val.json', 'images/val'),
    ('annotations/train.json', 'images', 'val.json', 'images'),
    ('train/_annotations.coco.json', 'train', '../valid/_annotations.coco.json', 'valid'),
    ('train.json', '.', 'validation.json', '.'),
    ('valve_train.json', 'train', 'valve_val.json', 'val'),
    ('latest-train.json', 'images/train', 'latest-test.json', 'images/test'),
]


@pytest.mark.parametrize(('train', 'images', 'val', 'others'), LAYOUTS)
def test_layouts(tmp_path, train, images, val, others):
    write(tmp_path, train, images)
    write(tmp_path, f'{train.rpartition("/")[0]}/{val}'.lstrip('/'), others)
    found = find_objects(tmp_path)
    assert found.classes == ('dog', 'cat')  # as the file orders them
    assert (found.annotation_files['train'], found.was_split) == (train, False)
    assert [(tmp_path / found.prefixes[s]).resolve() for s in ('train', 'val')] == [
        (tmp_path / place).resolve() for place in (images, others)
    ]
    assert len(found.objects('val')) == 5
    assert "['none']" in ' '.join(found.notes)


def test_one_file_is_split(tmp_path):
    path = write(tmp_path, 'labels.json', 'images', number=11)
    content = json.loads(path.read_text())
    content['annotations'] = content['annotations'][:10]  # an image without an object
    path.write_text(json.dumps(content))
    found, again, other = (find_objects(tmp_path, seed) for seed in (0, 0, 1))
    assert found.was_split
    assert found.contents == again.contents != other.contents
    images = {s: {i['id'] for i in found.contents[s]['images']} for s in ('train', 'val')}
    assert images['train'] | images['val'] == set(range(1, 12))
    assert [len(found.objects(split)) for split in ('train', 'val')] == [8, 2]
    for split, own in images.items():
        assert {a['image_id'] for a in found.contents[split]['annotations']} <= own


def test_a_test_set_is_left_alone(tmp_path):
    root = tmp_path / 'valerie'
    for name in ('train', 'valid', 'test'):
        write(root, f'{name}/_annotations.coco.json', name)
    assert find_objects(root).prefixes == dict(train='train', val='valid')


def test_words_within_others_name_no_split(tmp_path):
    for name in ('train.json', 'latest.json', 'test.json'):
        write(tmp_path, name, '.')
    found = find_objects(tmp_path)
    assert found.annotation_files == dict(train='train.json', val='test.json')
    assert 'test.json validates' in ' '.join(found.notes)


def test_each_category_keeps_an_image_to_train_on(tmp_path):
    path = write(tmp_path, 'labels.json', '.', number=10)
    content = json.loads(path.read_text())
    for i, annotation in enumerate(content['annotations']):
        annotation['category_id'] = 7 if i == 3 else 8  # an image of a cat
    path.write_text(json.dumps(content))
    for seed in range(10):
        found = find_objects(tmp_path, seed)
        assert found.classes == ('dog', 'cat')
        assert 4 in {each['image_id'] for each in found.objects('train')}
        assert len(found.contents['val']['images']) == 2


def test_a_split_can_be_evaluated_by(tmp_path):
    write(tmp_path, 'labels.json', '.', iscrowd=None)
    contents = find_objects(tmp_path).contents
    assert {a['iscrowd'] for c in contents.values() for a in c['annotations']} == {0}


def test_files_of_an_earlier_split_are_none_of_the_dataset(tmp_path):
    write(tmp_path, 'labels.json', '.')
    own = [write(tmp_path, f'my_config_{split}.json', '.') for split in ('train', 'val')]
    assert find_objects(tmp_path, 0, own).was_split


@pytest.mark.parametrize(
    ('changes', 'number'),
    [
        ([dict(bbox=[1, 1, -3, 4]), dict(bbox=[9, 9, 4, 4])], 3),  # which MMDetection leaves out
        ([dict(iscrowd=1)], 4),
        ([dict(segmentation=[])], 5),
    ],
)
def test_what_counts_as_an_object(tmp_path, changes, number):
    path = write(tmp_path, 'train.json', '.')
    content = json.loads(path.read_text())
    for annotation, change in zip(content['annotations'], changes, strict=False):
        annotation.update(change)
    path.write_text(json.dumps(content))
    write(tmp_path, 'val.json', '.')
    assert len(find_objects(tmp_path).objects('train')) == number


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(area=None), 'has no area'),
        (dict(bbox=[1, 2, 3]), 'bbox=[1, 2, 3]'),
        (dict(iscrowd=1), 'no object to train on'),
        (dict(image_id=99), 'image_id=99'),
        (dict(category_id=99), 'no object to train on'),
    ],
)
def test_faults_of_annotations(tmp_path, changes, words):
    write(tmp_path, 'train.json', '.', **changes)
    write(tmp_path, 'val.json', '.')
    with pytest.raises(ValueError, match=re.escape(words)):
        find_objects(tmp_path)


def test_classes_of_both_files_have_one_order(tmp_path):
    write(tmp_path, 'train.json', '.')
    path = write(tmp_path, 'val.json', '.')
    content = json.loads(path.read_text())
    content['categories'].reverse()
    path.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"val.json.*categories \['cat', 'dog'\].*\['dog', 'cat'\]"
    ):
        find_objects(tmp_path)


def test_a_file_that_is_listed_twice_is_not_split(tmp_path):
    path = write(tmp_path, 'labels.json', '.')
    content = json.loads(path.read_text())
    content['images'][1]['file_name'] = content['images'][0]['file_name']
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"the first is '1\.png'"):
        find_objects(tmp_path)


def test_absolute_names(tmp_path):
    path = write(tmp_path, 'labels.json', '.')
    content = json.loads(path.read_text())
    for image in content['images']:
        image['file_name'] = str(tmp_path / image['file_name'])
    path.write_text(json.dumps(content))
    assert find_objects(tmp_path).prefixes == dict(train='', val='')


def test_absent_files_and_images(tmp_path):
    with pytest.raises(ValueError, match='no file in COCO'):
        find_objects(tmp_path)
    (tmp_path / 'package.json').write_text('{}')
    with pytest.raises(ValueError, match='no file in COCO'):
        find_objects(tmp_path)
    write(tmp_path, 'train.json', 'train')
    write(tmp_path, 'val.json', 'val')
    (tmp_path / 'train/1.png').unlink()
    with pytest.raises(ValueError, match=r"'1\.png', is in none of .*train"):
        find_objects(tmp_path)


def test_several_files_of_a_split(tmp_path):
    for name in ('a_train.json', 'b_train.json', 'val.json'):
        write(tmp_path, name, '.')
    with pytest.raises(ValueError, match=r"'train' .*a_train\.json.*b_train\.json"):
        find_objects(tmp_path)
