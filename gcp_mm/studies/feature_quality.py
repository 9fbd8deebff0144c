"""What feature vectors are good for as they are: a linear classifier on them, and retrieval.

Both see the vectors only through the cosines between them, so that the length of a vector does not
matter to what they cost. The linear classifier on vectors of norm 1 is how bilinear and covariance
pooling are evaluated on fine-grained classes: Lin, RoyChowdhury and Maji, Bilinear CNN Models for
Fine-grained Visual Recognition, ICCV 2015, with C = 1.
"""

from collections.abc import Sequence

import numpy as np
from mmpretrain.evaluation import RetrievalAveragePrecision, RetrievalRecall
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
from tqdm import tqdm

from .feature_file import Features

TOPK = (1, 2, 4, 8)
BLOCK = 512  # rows that are widened to float32, or sorted, at once


def check_comparable(train: Features, test: Features) -> None:
    """Raise ValueError unless the vectors are of one network, stage and set of classes."""
    for name in ('stage', 'length', 'network', 'classes'):
        if getattr(train, name) != getattr(test, name):
            raise ValueError(
                f'{train.path} and {test.path} differ in their {name}: '
                f'{_short(getattr(train, name))} and {_short(getattr(test, name))}; extract both '
                'with one config, checkpoint and stage, from folders of the same classes'
            )


def cosines(a: Features, b: Features) -> np.ndarray:
    """The cosine of the angle between each vector of `a` and each of `b`.

    Returns:
        (N_a, N_b) float32.

    Raises:
        ValueError: for a vector of zeros, which has no direction.
    """
    out = np.empty((len(a.vectors), len(b.vectors)), dtype=np.float32)
    for i in tqdm(range(0, len(a.vectors), BLOCK), desc='cosines', unit='block'):
        rows = _normalised(a, i)
        for j in range(0, len(b.vectors), BLOCK):
            out[i : i + BLOCK, j : j + BLOCK] = rows @ _normalised(b, j).T
    return out


def linear_svm(
    train_cosines: np.ndarray,
    train_labels: np.ndarray,
    test_cosines: np.ndarray,
    test_labels: np.ndarray,
    candidates: Sequence[float] = (0.1, 1, 10, 100),
) -> tuple[float, float]:
    """Top-1 accuracy of one-vs-all linear SVMs on vectors of norm 1.

    Args:
        train_cosines: (N, N), between the vectors to train on.
        train_labels: (N,).
        test_cosines: (M, N), between those to test and those to train on.
        test_labels: (M,).
        candidates: for C, the weight of the hinge losses. Of several, the one that is best on a
            fifth of the training vectors after training on the others; the smaller of equals.

    Returns:
        Accuracy in percent, and C.

    Raises:
        ValueError: for fewer than 2 classes, or too few vectors to choose C by.
    """
    classes, counts = np.unique(train_labels, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f'train_labels: expected at least 2 classes, got {len(classes)}')
    best = min(candidates)
    if len(candidates) > 1:
        if counts.min() < 2 or len(train_labels) < 5 * len(classes):
            raise ValueError(
                f'{len(train_labels)} vectors of {len(classes)} classes, of one of them '
                f'{counts.min()}, are too few to choose C by; give one C (--C 1)'
            )
        fit, held = train_test_split(
            np.arange(len(train_labels)), test_size=0.2, stratify=train_labels, random_state=0
        )
        split = (train_cosines[np.ix_(fit, fit)], train_labels[fit])
        held_out = (train_cosines[np.ix_(held, fit)], train_labels[held])
        best = max(sorted(candidates), key=lambda c: _svm_accuracy(*split, *held_out, c))
    return _svm_accuracy(train_cosines, train_labels, test_cosines, test_labels, best), best


def retrieval(
    similarities: np.ndarray,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    topk: Sequence[int] = TOPK,
    same: bool = False,
) -> dict[str, float]:
    """Recall at k and mean average precision of the gallery, ranked for each query.

    Args:
        similarities: (Q, G), of each query to each vector of the gallery.
        query_labels: (Q,). Relevant to a query is what has its label.
        gallery_labels: (G,).
        topk: k of the recalls: the share of queries with a relevant vector among the first k.
        same: whether the gallery is the queries, and each is to be ranked without itself.

    Returns:
        'recall@<k>' for each of `topk`, and 'mAP', over whole rankings; in percent.

    Raises:
        ValueError: if the gallery holds nothing relevant to some query.
    """
    counts = np.bincount(gallery_labels, minlength=query_labels.max() + 1)[query_labels] - same
    if counts.min() < 1:
        raise ValueError(
            f'nothing in the gallery is relevant to query {counts.argmin()}, of label '
            f'{query_labels[counts.argmin()]}; leave out classes of a single image'
        )
    ranks = similarities.shape[1] - same
    recalls, precision = np.zeros(len(topk)), 0.0
    for start in tqdm(range(0, len(similarities), BLOCK), desc='retrieval', unit='block'):
        block = similarities[start : start + BLOCK].astype(np.float32)
        queries = np.arange(start, start + len(block))
        if same:
            block[np.arange(len(block)), queries] = -np.inf  # last, and cut off
        order = np.argsort(-block, axis=1, kind='stable')[:, :ranks]
        relevant = [np.flatnonzero(gallery_labels == label) for label in query_labels[queries]]
        if same:
            relevant = [hits[hits != query] for hits, query in zip(relevant, queries, strict=True)]
        # The metrics shorten the lists they are given.
        indices = dict(pred_indices=True, target_indices=True)
        found = RetrievalRecall.calculate(list(order), list(relevant), list(topk), **indices)
        recalls += len(block) * np.array([float(share) for share in found])
        precision += len(block) * RetrievalAveragePrecision.calculate(
            list(order), list(relevant), ranks, **indices
        )
    names = [f'recall@{k}' for k in topk]
    values = [*recalls / len(similarities), precision / len(similarities)]
    return dict(zip([*names, 'mAP'], map(float, values), strict=True))


def _short(value):
    """A value, or how many there are and the first of them."""
    return f'{len(value)}, {value[0]!r} ...' if isinstance(value, tuple) else repr(value)


def _normalised(features, start):
    block = features.vectors[start : start + BLOCK].astype(np.float32)
    norms = np.linalg.norm(block, axis=1, keepdims=True)
    if not norms.all():
        file = features.files[start + int(norms.argmin())]
        raise ValueError(f'{features.path}: the vector of {file!r} is zero and has no direction')
    return block / norms


def _svm_accuracy(train_cosines, train_labels, test_cosines, test_labels, c):
    """Accuracy in percent."""
    classes = np.unique(train_labels)
    train_cosines = train_cosines.astype(np.float64)  # which libsvm would do for every class
    scores = np.empty((len(test_cosines), len(classes)))
    for k, label in enumerate(tqdm(classes, desc=f'linear SVMs, C={c:g}', unit='class')):
        svm = SVC(kernel='precomputed', C=c).fit(train_cosines, train_labels == label)
        scores[:, k] = svm.decision_function(test_cosines)
    return 100 * float((classes[scores.argmax(axis=1)] == test_labels).mean())
