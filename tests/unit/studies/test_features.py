"""Feature vectors: from the network to a file, and their evaluation against scikit-learn's."""

import dataclasses
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from mmpretrain.apis import FeatureExtractor
from PIL import Image
from sklearn.metrics import average_precision_score
from sklearn.model_selection import train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVC

from gcp_mm import get_model
from gcp_mm.ops import global_covariance_pooling
from gcp_mm.studies.features import (
    Features,
    check_comparable,
    extract_features,
    linear_svm,
    read_features,
    retrieval,
)

CLASSES = ['0', '1', '7']


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return get_model('resnet18-gcp_1xb64-5e_digits')


@pytest.fixture(scope='module')
def folder(digits, tmp_path_factory):
    """A folder of 3 digits of each of three classes, one of them a folder deeper."""
    root = tmp_path_factory.mktemp('folder') / 'in'
    for name in CLASSES:
        (root / name / 'deep').mkdir(parents=True)
        for number, path in enumerate(sorted((digits / 'val' / name).iterdir())[:3]):
            shutil.copy(path, root / name / ('deep' if number == 1 else ''))
    return root


def test_extract_feat_of_a_gcp_classifier_is_the_covariance_vector(model):
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        (vector,) = model.extract_feat(x, stage='neck')
        (features,) = model.extract_feat(x, stage='backbone')
        expected = global_covariance_pooling(model.neck.reduction(features), method='newton_schulz')
        torch.testing.assert_close(vector, expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(model.head.fc(vector), model(x))
        torch.testing.assert_close(model.extract_feat(x, stage='pre_logits'), vector)
    assert vector.shape == (2, model.head.in_channels)


@pytest.mark.parametrize('stage', ['neck', 'backbone', 'pre_logits'])
def test_file_holds_what_mmpretrains_extractor_gives(model, folder, tmp_path, stage):
    extract_features(model.train(), folder, tmp_path / 'x.npy', stage, batch_size=2)
    features = read_features(tmp_path / 'x.npy')
    assert (features.classes, features.stage) == (CLASSES, stage)
    assert features.labels == [0] * 3 + [1] * 3 + [2] * 3
    paths = [folder / file for file in features.files]
    assert sorted(paths) == sorted(folder.rglob('*.png'))
    assert [CLASSES.index(file.split('/')[0]) for file in features.files] == features.labels
    for path, vector in zip(paths, features.vectors, strict=True):
        (expected,) = FeatureExtractor(model)(str(path), stage=stage)
        expected = expected[-1] if isinstance(expected, tuple) else expected
        expected = expected.mean(dim=(1, 2)) if stage == 'backbone' else expected
        np.testing.assert_allclose(vector, expected, rtol=1e-3, atol=1e-4)


def test_a_killed_run_leaves_no_complete_file(model, folder, tmp_path, monkeypatch):
    """Before its last step; a left-over of a killed one is written over."""
    with monkeypatch.context() as patch:
        patch.setattr('pathlib.Path.replace', lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extract_features(model, folder, tmp_path / 'x.npy')
    with pytest.raises(FileNotFoundError):
        read_features(tmp_path / 'x.npy')
    (tmp_path / 'x.partial.npy').write_text('left over')
    extract_features(model, folder, tmp_path / 'x.npy', force=True)
    assert read_features(tmp_path / 'x.npy').vectors.shape == (9, 8256)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['x.json', 'x.npy']
    (tmp_path / 'x.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'x\.json'):
        read_features(tmp_path / 'x.npy')


@pytest.mark.parametrize('name', ['x.npy', 'x.json'])
def test_existing_file_is_kept_without_force(model, folder, tmp_path, name):
    (tmp_path / name).write_text('precious')
    with pytest.raises(FileExistsError, match=rf'{name} .*--force'):
        extract_features(model, folder, tmp_path / 'x.npy')
    assert (tmp_path / name).read_text() == 'precious'


def test_another_process_that_writes_the_file(model, folder, tmp_path, monkeypatch):
    def taken(path, output, wait):
        raise BlockingIOError(11, 'process 7 is writing it', str(output))

    monkeypatch.setattr('gcp_mm._lock._take', taken)
    with pytest.raises(BlockingIOError, match=r'process 7 .*x\.npy'):
        extract_features(model, folder, tmp_path / 'x.npy')
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='a device of Linux')
def test_a_full_disk_leaves_nothing(model, folder, tmp_path):
    (tmp_path / 'x.partial.npy').symlink_to('/dev/full')
    with pytest.raises(OSError, match='No space left'):
        extract_features(model, folder, tmp_path / 'x.npy')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('error', 'words', 'changes'),
    [
        (FileNotFoundError, 'nowhere', dict(folder='nowhere')),
        (ValueError, 'expected .*/<class>/<image>: Found 0 files', dict(folder='0/deep')),
        (ValueError, r"ends in \.npy, got '.*x\.npz'", dict(out='x.npz')),
        (ValueError, "stage: .*got 'head'", dict(stage='head')),
        (TypeError, 'ImageClassifier, got a Linear', dict(model=torch.nn.Linear(1, 1))),
    ],
)
def test_wrong_arguments_are_refused(model, folder, tmp_path, error, words, changes):
    options = dict(model=model, stage='neck') | changes
    options |= dict(folder=folder / changes.get('folder', '.'))
    with pytest.raises(error, match=words):
        extract_features(**options | dict(out=tmp_path / changes.get('out', 'x.npy')))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of the folder, to be changed, and nothing beside it."""
    return shutil.copytree(folder, tmp_path / 'in')


def test_an_image_cut_short_leaves_nothing(model, copied, tmp_path):
    """After two batches of two."""
    broken = sorted((copied / '1').rglob('*.png'))[2]
    broken.write_bytes(broken.read_bytes()[:-40])
    with pytest.raises(ValueError, match=rf"image '{broken}' .*truncated"):
        extract_features(model, copied, tmp_path / 'x.npy', batch_size=2)
    assert [path.name for path in tmp_path.iterdir()] == ['in']


def test_images_of_several_sizes_need_batches_of_one(model, copied, tmp_path):
    path = min((copied / '7').glob('*.png'))
    Image.open(path).resize((40, 48)).save(path)
    with pytest.raises(ValueError, match=r'and \(3, 48, 40\).*--batch-size 1'):
        extract_features(model, copied, tmp_path / 'x.npy')
    extract_features(model, copied, tmp_path / 'x.npy', batch_size=1)
    assert np.isfinite(read_features(tmp_path / 'x.npy').vectors).all()


def test_an_empty_class_is_refused(model, copied, tmp_path):
    (copied / 'zz').mkdir()
    with pytest.raises(ValueError, match="'zz'"):
        extract_features(model, copied, tmp_path / 'x.npy')


def test_features_that_are_not_finite_are_refused(folder, tmp_path):
    net = get_model('resnet18-gcp_1xb64-5e_digits')
    net.neck.reduction[0].norm.weight.data.fill_(float('inf'))
    with pytest.raises(ValueError, match=r"image '0/.*': .*not finite in float32"):
        extract_features(net, folder, tmp_path / 'x.npy', 'pre_logits')
    assert not list(tmp_path.iterdir())


def test_vectors_of_several_lengths_are_refused(model, copied, tmp_path, monkeypatch):
    """Of a stage that keeps the positions of images of several sizes."""
    path = min((copied / '7').glob('*.png'))
    Image.open(path).resize((40, 48)).save(path)
    monkeypatch.setattr(model, 'extract_feat', lambda inputs, stage: inputs.flatten(1))
    with pytest.raises(ValueError, match=r'of \d+ and 5760 numbers'):
        extract_features(model, copied, tmp_path / 'x.npy', batch_size=1)
    assert [path.name for path in tmp_path.iterdir()] == ['in']


DESCRIPTION = dict(labels=[0, 1], classes=['0', '1'], files=['0', '1'], stage='neck', network='')
BAD_LABELS = r'a\.json: expected labels in range\(0, 2\)'


@pytest.mark.parametrize(
    ('shape', 'kind', 'description', 'words'),
    [
        ((2, 2), '<f4', '{', r'a\.json.* is not a JSON file'),
        ((2, 2), '<f4', '{"accuracy": 1}', r'a\.json.*labels'),
        ((2, 2), '<f4', dict(labels=[0]), '2 vectors beside 1'),
        *(((2, 2), '<f4', dict(labels=[0, k]), BAD_LABELS) for k in (2, -1, '0', True)),
        ((2**28, 4), '<f4', {}, r'a\.npy.*(greater than file size|mmap)'),
        ((4,), '<f4', {}, r'a\.npy.*got float32 of shape \(4,\)'),
        ((), '<f4', {}, r'a\.npy.*of shape \(\)'),
        ((1, 2), '<i8', {}, r'a\.npy.*got int64'),
        ((2, 4), '<f2', {}, r'a\.npy.*got float16'),
        ((1, 2), '|O', {}, r'a\.npy.*Python objects'),
    ],
)
def test_what_is_not_of_one_extraction_is_refused(tmp_path, shape, kind, description, words):
    """16 bytes of an array that may claim more; a description of something else."""
    with open(tmp_path / 'a.npy', 'wb') as file:
        header = dict(descr=kind, fortran_order=False, shape=shape)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(16))
    if isinstance(description, dict):
        description = json.dumps(DESCRIPTION | description)
    (tmp_path / 'a.json').write_text(description)
    with pytest.raises(ValueError, match=words):
        read_features(tmp_path / 'a.npy')


def test_another_suffix_is_refused():
    with pytest.raises(ValueError, match=r'a\.npz'):
        read_features('a.npz')


@pytest.mark.parametrize('change', [dict(stage='backbone'), dict(network='1'), dict(classes=['a'])])
def test_features_that_do_not_compare_are_refused(change):
    train = Features(np.zeros((2, 2)), **DESCRIPTION)
    check_comparable(train, Features(np.ones((2, 2)), **DESCRIPTION))
    ((key, value),) = change.items()
    words = f'their {key}: {DESCRIPTION[key]!r} and {value!r}'
    with pytest.raises(ValueError, match=re.escape(words)):
        check_comparable(train, dataclasses.replace(train, **change))


@pytest.fixture
def sets():
    """120 vectors of norm 1 to train on and 60 to test, of three classes that overlap."""
    rng = np.random.default_rng(2)
    centers = rng.normal(size=(3, 20))
    labels = np.arange(180) % 3
    vectors = (1 + centers[labels] + 2 * rng.normal(size=(180, 20))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[:120], labels[:120], vectors[120:], labels[120:]


def one_vs_all(train, train_labels, test, test_labels, c):
    """Accuracy in percent of scikit-learn's linear SVMs on the vectors themselves."""
    svm = OneVsRestClassifier(SVC(kernel='linear', C=c)).fit(train, train_labels)
    return 100 * svm.score(test, test_labels)


def test_linear_svm_is_one_vs_all_on_the_vectors_themselves(sets):
    x, y, test, test_labels = sets
    grams = (x @ x.T, y, test @ x.T, test_labels)
    candidates = (100, 0.01, 1, 0.3)
    expected = {c: one_vs_all(x, y, test, test_labels, c) for c in candidates}
    assert len(set(expected.values())) == 4
    for c in candidates:
        assert linear_svm(*grams, [c]) == (pytest.approx(expected[c]), c)
    fit, held = train_test_split(np.arange(120), test_size=0.2, stratify=y, random_state=0)
    held_out = {c: one_vs_all(x[fit], y[fit], x[held], y[held], c) for c in candidates}
    best = max(held_out, key=held_out.get)
    assert sorted(held_out.values())[-2] < held_out[best]
    assert linear_svm(*grams, candidates) == (pytest.approx(expected[best]), best)


def test_c_is_the_smaller_of_equals_and_needs_vectors_to_choose_by():
    labels = np.arange(40) % 2
    vectors = np.stack([labels, 1 - labels], axis=1)
    gram = vectors @ vectors.T
    assert linear_svm(gram, labels, gram, labels, [100, 1]) == (100, 1)
    with pytest.raises(ValueError, match='least populated class'):
        linear_svm(gram[:3, :3], labels[:3], gram[:3, :3], labels[:3], [1, 2])


def test_retrieval_by_hand():
    # Rankings: query 0 finds 1, 0, 3, 2; query 1 finds 3, 2, 0, 1.
    similarities = np.array([[0.5, 0.9, -0.3, 0.1], [0.2, 0.1, 0.4, 0.8]])
    metrics = retrieval(similarities, [0, 1], [0, 1, 0, 1])
    # Relevant at ranks 2, 4 (query 0) and 1, 4 (query 1).
    expected = {'recall@1': 50, 'recall@2': 100, 'recall@4': 100, 'recall@8': 100}
    expected['mAP'] = 100 * ((1 / 2 + 2 / 4) / 2 + (1 + 2 / 4) / 2) / 2
    assert metrics == pytest.approx(expected)
    ties = retrieval(np.zeros((1, 2)), [0], [0, 1])
    assert (ties['recall@1'], ties['recall@2'], ties['mAP']) == (0, 100, 50)


@pytest.mark.parametrize('same', [False, True])
def test_retrieval_is_that_of_nearest_neighbors(sets, same):
    gallery, gallery_labels, queries, query_labels = sets
    if same:
        gallery, gallery_labels = queries, query_labels
    scores = queries @ gallery.T
    metrics = retrieval(scores, query_labels, gallery_labels, same=same)
    search = NearestNeighbors(metric='cosine', algorithm='brute').fit(gallery)
    near = search.kneighbors(None if same else queries, 8, return_distance=False)
    hits = gallery_labels[near] == query_labels[:, None]
    for k in (1, 2, 4, 8):
        assert metrics[f'recall@{k}'] == pytest.approx(100 * hits[:, :k].any(axis=1).mean())
    precisions = []
    for i, label in enumerate(query_labels):
        keep = np.arange(len(gallery_labels)) != i if same else slice(None)
        precisions.append(average_precision_score((gallery_labels == label)[keep], scores[i][keep]))
    assert metrics['mAP'] == pytest.approx(100 * np.mean(precisions))
    assert 34 < metrics['recall@1'] < 100


@pytest.mark.parametrize(
    ('labels', 'same', 'words'),
    [([0, 2], False, 'query 1, of label 2'), ([0, 0, 1], True, 'query 2, of label 1')],
)
def test_query_without_a_match_is_refused(labels, same, words):
    gallery = labels if same else [0, 1]
    with pytest.raises(ValueError, match=words):
        retrieval(np.ones((len(labels), len(gallery))), labels, gallery, same=same)
