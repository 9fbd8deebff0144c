"""Evaluation of feature vectors as they are: a linear classifier on them, and retrieval.

Both only need the cosines between the vectors, so that the length of a vector hardly matters to the
cost. Linear SVMs on vectors of norm 1 are the usual evaluation of bilinear and covariance pooling
on fine-grained classes: Lin, RoyChowdhury and Maji, Bilinear CNN Models for Fine-grained Visual
Recognition, ICCV 2015, with C = 1.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import label_ranking_average_precision_score
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import normalize
from sklearn.svm import SVC

from .features import Features

TOPK = (1, 2, 4, 8)


def check_comparable(train: Features, test: Features) -> None:
    """Raise ValueError unless the vectors are of one network, stage and set of classes."""
    for name in ('stage', 'network', 'classes'):
        if getattr(train, name) != getattr(test, name):
            raise ValueError(
                f'train and test differ in their {name}: {getattr(train, name)!r:.40} and '
                f'{getattr(test, name)!r:.40}; extract both with one config, checkpoint and stage, '
                'from folders of the same classes'
            )


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine of the angle between each row of `a` and each of `b`.

    Args:
        a: (N, L). A row of zeros has the cosine 0 with all others.
        b: (M, L).

    Returns:
        (N, M) float32.
    """
    a, b = (normalize(np.asarray(x, dtype=np.float32)) for x in (a, b))
    return a @ b.T


def linear_svm(
    train_cosines: np.ndarray,
    train_labels: Sequence[int],
    test_cosines: np.ndarray,
    test_labels: Sequence[int],
    candidates: Sequence[float] = (0.1, 1, 10, 100),
) -> tuple[float, float]:
    """Top-1 accuracy of one-vs-rest linear SVMs on vectors of norm 1.

    Args:
        train_cosines: (N, N), between the training vectors.
        train_labels: N labels.
        test_cosines: (M, N), between the test and the training vectors.
        test_labels: M labels.
        candidates: for C, the weight of the hinge losses. Of several, the one that is best on a
            fifth of the training vectors after training on the others; the smaller of equals.

    Returns:
        Accuracy in percent, and C.

    Raises:
        ValueError: of scikit-learn, if the vectors are too few to choose C.
    """
    svm = OneVsRestClassifier(SVC(kernel='precomputed', C=min(candidates)))
    if len(candidates) > 1:
        fifth = StratifiedShuffleSplit(n_splits=1, test_size=0.2, random_state=0)
        svm = GridSearchCV(svm, dict(estimator__C=sorted(candidates)), cv=fifth)
    svm.fit(train_cosines.astype(np.float64), train_labels)  # libsvm would convert it each time
    best = svm.best_params_['estimator__C'] if len(candidates) > 1 else candidates[0]
    return 100 * svm.score(test_cosines.astype(np.float64), test_labels), best


def retrieval(
    similarities: np.ndarray,
    query_labels: Sequence[int],
    gallery_labels: Sequence[int],
    same: bool = False,
) -> dict[str, float]:
    """Recall at k and mean average precision of the gallery, ranked for each query.

    Of equal similarities those of other labels come first.

    Args:
        similarities: (Q, G) cosines, of each query to each vector of the gallery.
        query_labels: Q labels. Relevant to a query is what has its label.
        gallery_labels: G labels.
        same: whether the gallery is the queries, and each is ranked without itself.

    Returns:
        'recall@<k>', the share of queries with a relevant vector among the first k, for each k of
        :data:`TOPK`, and 'mAP', over whole rankings; in percent.

    Raises:
        ValueError: if the gallery holds nothing relevant to some query.
    """
    relevant = np.equal.outer(query_labels, gallery_labels)
    if same:
        np.fill_diagonal(relevant, False)
        similarities = np.where(np.eye(len(relevant), dtype=bool), -2, similarities)  # last
    lonely = ~relevant.any(axis=1)
    if lonely.any():
        query = int(lonely.argmax())
        raise ValueError(
            f'nothing in the gallery is relevant to query {query}, of label {query_labels[query]}; '
            'leave out classes of a single image'
        )
    best = np.where(relevant, similarities, -2).max(axis=1, keepdims=True)
    ahead = (~relevant & (similarities >= best)).sum(axis=1)
    found = {f'recall@{k}': 100 * float((ahead < k).mean()) for k in TOPK}
    return found | dict(
        mAP=100 * float(label_ranking_average_precision_score(relevant, similarities))
    )
