"""The digits: complete, deterministic, and true to their annotations."""

import hashlib
import json
from functools import partial

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from gcp_mm.data.digit_scenes import write_scenes
from gcp_mm.data.digits import draw_clutter, load_splits, write_classification, write_clutter


def digest(root):
    files = sorted(path for path in root.rglob('*') if path.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_splits_are_stratified_and_disjoint():
    splits = load_splits()
    images = np.concatenate([splits['train'][0], splits['val'][0]])
    labels = np.concatenate([splits['train'][1], splits['val'][1]])
    from sklearn.datasets import load_digits

    digits = load_digits()

    def rows(images, labels):
        return sorted(map(tuple, np.column_stack([labels, images.reshape(len(images), -1)])))

    assert rows(images * 16, labels) == rows(digits.images, digits.target)
    assert np.bincount(splits['val'][1]).tolist() == pytest.approx([36] * 10, abs=1)


def test_classification_folder(digits):
    assert len(list(digits.glob('train/*/*.png'))) == 1437
    assert len(list(digits.glob('val/*/*.png'))) == 360
    first = sorted(digits.glob('val/3/*.png'))[0]
    image, label = (part[int(first.stem)] for part in load_splits()['val'])
    assert label == 3
    small = np.asarray(Image.open(first).resize((8, 8), Image.BOX)) / 255
    assert np.abs(small - image).mean() < 0.05


def test_same_options_same_files(digits, scenes, tmp_path):
    write_classification(tmp_path / 'digits', image_size=32)
    write_scenes(tmp_path / 'scenes', scene_size=96, train_scenes=4, val_scenes=2)
    assert digest(tmp_path / 'digits') == digest(digits)
    assert digest(tmp_path / 'scenes') == digest(scenes)


def test_complete_set_is_left_alone_and_not_taken_for_another(digits):
    before = digest(digits)
    assert write_classification(digits, image_size=32) is False
    with pytest.raises(ValueError, match=r"made with .*'image_size': 32.*'image_size': 48.*remove"):
        write_classification(digits, image_size=48)
    with pytest.raises(ValueError, match=r"made with .*this is .*'per_class': 20"):
        write_classification(digits, image_size=32, per_class=20)
    assert digest(digits) == before


def test_interrupted_run_is_started_over_and_lost_files_are_named(tmp_path):
    options = dict(root=tmp_path / 'scenes', scene_size=40, train_scenes=1, val_scenes=1)
    partial = tmp_path / 'scenes.partial'
    partial.mkdir()
    (partial / 'left-over').touch()
    write_scenes(**options)
    assert not partial.exists()
    assert not (tmp_path / 'scenes/left-over').exists()
    (tmp_path / 'scenes/val/00000.png').unlink()
    with pytest.raises(ValueError, match=r"'files': 4}, and this is {'files': 3"):
        write_scenes(**options)


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / 'precious.txt').touch()
    with pytest.raises(ValueError, match='not made by this program; name another folder'):
        write_classification(tmp_path)
    (tmp_path / 'made-with.json').write_text('{')
    with pytest.raises(ValueError, match=r"made-with\.json'"):
        write_classification(tmp_path)
    assert (tmp_path / 'precious.txt').exists()


@pytest.mark.parametrize(
    ('write', 'options', 'words'),
    [
        (write_scenes, dict(scene_size=10), 'scene_size.*got 10'),
        (write_scenes, dict(train_scenes=0), 'train_scenes.*got 0'),
        (write_scenes, dict(val_scenes=0), 'val_scenes.*got 0'),
        (write_classification, dict(image_size=7), 'image_size.*got 7'),
        (write_classification, dict(per_class=140), 'per_class.*at most 139, got 140'),
        (write_clutter, dict(train_images=9), 'train_images.*got 9'),
    ],
)
def test_wrong_options(write, options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        write(tmp_path / 'x', **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('split', ['train', 'val'])
def test_scene_annotations(scenes, split):
    coco = COCO(scenes / f'annotations/instances_{split}.json')
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == list('0123456789')
    for image in coco.loadImgs(coco.getImgIds()):
        pixels = np.asarray(Image.open(scenes / split / image['file_name']))
        assert pixels.shape == (96, 96, 3)
        annotations = coco.loadAnns(coco.getAnnIds(image['id']))
        assert 1 <= len(annotations) <= 4
        union = np.zeros((96, 96), int)
        for annotation in annotations:
            mask = coco.annToMask(annotation)
            x, y, w, h = map(int, annotation['bbox'])
            assert mask.sum() == annotation['area'] == mask[y : y + h, x : x + w].sum()
            assert mask[y : y + h, x : x + w].any(axis=0).all()
            assert pixels[mask == 1].mean() > pixels[mask == 0].mean() + 20
            union += mask
        assert union.max() == 1


def test_manifest_says_what_made_it(scenes):
    content = json.loads((scenes / 'made-with.json').read_text())
    options = dict(scene_size=96, train=4, val=2, max_digits=4, val_digits=360, seed=0)
    assert content == dict(options=options, files=4 + 2 + 2)


def test_command_line(call_tool, capsys, tmp_path, monkeypatch):
    few = partial(write_scenes, scene_size=40, train_scenes=1, val_scenes=1)
    monkeypatch.setattr('gcp_mm.data.digit_scenes.write_scenes', few)
    few = partial(write_clutter, train_images=10, val_images=10)
    monkeypatch.setattr('gcp_mm.data.digits.write_clutter', few)
    for word in ('written', 'already complete'):
        call_tool('tools/make_digits.py', '--out', tmp_path, '--hard')
        names = ('digits', 'digits_coco', 'digits_few', 'digits_clutter')
        lines = capsys.readouterr().out.splitlines()
        assert lines == [f'{tmp_path}/{name}: {word}' for name in names]
    assert len(list(tmp_path.glob('digits_few/train/*/*'))) == 20 * 10


def test_few_labels(tmp_path):
    write_classification(tmp_path / 'few', per_class=3, image_size=8)
    for split, (digits, labels) in load_splits().items():
        for label in range(10):
            files = sorted((tmp_path / 'few' / split / str(label)).iterdir())
            of_class = digits[labels == label]
            assert len(files) == (3 if split == 'train' else len(of_class))
            for file, digit in zip(files, of_class, strict=False):
                pixels = np.asarray(Image.open(file))
                np.testing.assert_array_equal(pixels, (digit * 255).round())


def test_clutter_shows_a_digit_of_its_class_at_any_place():
    """The class's own digit is drawn last, so that no part hides it; nothing is drawn beyond."""
    digits = np.zeros((2, 8, 8))
    digits[1, 2:6, 2:6] = 1  # one is ink in its middle, the other is empty
    centers = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        image = draw_clutter(digits[1:], 0, rng)
        assert image.shape == (64, 64)
        assert 0 <= image.min() <= image.max() <= 1
        empty = draw_clutter(digits[:1], 0, np.random.default_rng(seed))
        rows, cols = np.nonzero(np.abs(image - empty) > 0.2)
        centers.append((rows.mean(), cols.mean()))
    assert np.std(centers, axis=0).min() > 3


def test_clutter_is_deterministic_and_keeps_the_splits_apart(tmp_path, monkeypatch):
    shown = {'train': set(), 'val': set()}
    splits = load_splits()

    def record(digits, pick, rng):
        (split,) = (
            name for name, (all_of_it, _) in splits.items() if len(all_of_it) == len(digits)
        )
        shown[split].add(pick)
        return draw_clutter(digits, pick, rng)

    monkeypatch.setattr('gcp_mm.data.digits.draw_clutter', record)
    for name in 'ab':
        assert write_clutter(tmp_path / name, train_images=20, val_images=10) is True
    assert digest(tmp_path / 'a') == digest(tmp_path / 'b')
    assert len(digest(tmp_path / 'a')) == 30 + 1
    assert all(shown.values())
