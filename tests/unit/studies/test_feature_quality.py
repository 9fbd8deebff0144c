"""Cosines, linear SVMs and retrieval, against scikit-learn on the vectors themselves."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.model_selection import train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVC

from gcp_mm.studies.feature_quality import check_comparable, cosines, linear_svm, retrieval
from gcp_mm.studies.features import Features


def features_of(vectors, labels, **kwargs):
    files = [f'{i}.png' for i in range(len(vectors))]
    settings = dict(classes=['a', 'b', 'c'], files=files, stage='neck', network='0')
    return Features(vectors=vectors, labels=labels.tolist(), **settings | kwargs)


@pytest.fixture
def sets():
    """120 vectors to train on and 60 to test, of three classes that overlap."""
    rng = np.random.default_rng(2)
    centers = rng.normal(size=(3, 20))
    labels = np.arange(180) % 3
    vectors = (1 + centers[labels] + 2 * rng.normal(size=(180, 20))).astype(np.float32)
    return features_of(vectors[:120], labels[:120]), features_of(vectors[120:], labels[120:])


def normalized(features):
    return features.vectors / np.linalg.norm(features.vectors, axis=1, keepdims=True)


@pytest.mark.parametrize('dtype', [np.float32, np.float16])
def test_cosines(sets, dtype):
    a, b = (features.vectors.astype(dtype) for features in sets)
    expected = normalized(sets[0]) @ normalized(sets[1]).T
    # A sum of 20 products, or vectors that were rounded
    atol = 20 * np.finfo(np.float32).eps if dtype == np.float32 else np.finfo(np.float16).eps
    np.testing.assert_allclose(cosines(a, b), expected, atol=atol)
    a[70] = 0
    assert not cosines(a, b)[70].any()


def one_vs_all(train, train_labels, test, test_labels, c):
    """Accuracy in percent of scikit-learn's linear SVMs on the vectors themselves."""
    svm = OneVsRestClassifier(SVC(kernel='linear', C=c)).fit(train, train_labels)
    return 100 * svm.score(test, test_labels)


def test_linear_svm_is_one_vs_all_on_the_vectors_themselves(sets):
    train, test = sets
    x, y = normalized(train), np.array(train.labels)
    grams = (x @ x.T, y, normalized(test) @ x.T, test.labels)
    candidates = (100, 0.01, 1, 0.3)
    expected = {c: one_vs_all(x, y, normalized(test), test.labels, c) for c in candidates}
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
    gallery, queries = sets
    gallery = queries if same else gallery
    gallery_labels, query_labels = np.array(gallery.labels), np.array(queries.labels)
    scores = normalized(queries) @ normalized(gallery).T
    metrics = retrieval(scores, queries.labels, gallery.labels, same=same)
    search = NearestNeighbors(metric='cosine', algorithm='brute').fit(gallery.vectors)
    near = search.kneighbors(None if same else queries.vectors, 8, return_distance=False)
    hits = gallery_labels[near] == query_labels[:, None]
    for k in (1, 2, 4, 8):
        assert metrics[f'recall@{k}'] == pytest.approx(100 * hits[:, :k].any(axis=1).mean())
    precisions = []
    for i, label in enumerate(query_labels):
        keep = np.arange(len(gallery_labels)) != i if same else slice(None)
        precisions.append(average_precision_score((gallery_labels == label)[keep], scores[i][keep]))
    assert metrics['mAP'] == pytest.approx(100 * np.mean(precisions))
    assert 34 < metrics['recall@1'] < 100


def test_query_without_a_match_is_refused():
    with pytest.raises(ValueError, match='query 1, of label 2'):
        retrieval(np.ones((2, 2)), [0, 2], [0, 1])
    with pytest.raises(ValueError, match='query 2, of label 1'):
        retrieval(np.ones((3, 3)), [0, 0, 1], [0, 0, 1], same=True)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(stage='backbone'), "their stage: 'neck' and 'backbone'"),
        (dict(network='1'), "their network: '0' and '1'"),
        (dict(classes=['a', 'b']), r"their classes: \['a', 'b', 'c'\] and \['a', 'b'\]"),
    ],
)
def test_features_that_do_not_compare_are_refused(sets, change, words):
    train, test = sets
    check_comparable(train, test)
    with pytest.raises(ValueError, match=words):
        check_comparable(train, features_of(test.vectors, np.array(test.labels), **change))
