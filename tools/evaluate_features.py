"""Evaluate feature vectors as they are, without training the network further.

TRAIN and TEST, files of tools/extract_features.py: top-1 accuracy on TEST of a linear classifier
that is trained on TRAIN, and retrieval with TEST as the queries and TRAIN as the gallery. TRAIN
alone: retrieval with each of its images as the query and all others as the gallery, which is how
embeddings are evaluated on classes that no network was trained on. Prints the results as JSON.
"""

import argparse
import json
from pathlib import Path

from arguments import run

import numpy as np
from sklearn.metrics.pairwise import cosine_similarity

from gcp_mm.studies.features import check_comparable, linear_svm, read_features, retrieval


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('train', help='.npy file')
    parser.add_argument('test', nargs='?', help='.npy file of the same network and classes')
    parser.add_argument(
        '--C',
        nargs='+',
        type=float,
        default=[0.1, 1, 10, 100],
        help='C of the linear SVMs; the best of several values is chosen on a held-out fifth of '
        'TRAIN; default: 0.1 1 10 100',
    )
    return parser.parse_args()


def cosines(a, b):
    """The cosine of the angle between each vector of `a`, (N, L), and each of `b`, (N, M)."""
    return cosine_similarity(*(np.asarray(each.vectors, np.float32) for each in (a, b)))


def main():
    args = parse_args()
    if args.test and Path(args.test).resolve() == Path(args.train).resolve():
        raise ValueError(
            f'{args.test!r} is both TRAIN and TEST; name one file to rank its own images'
        )
    train = queries = read_features(args.train)
    results = dict(stage=train.stage, length=train.vectors.shape[1], classes=len(train.classes))
    results['train'] = len(train.labels)
    if args.test:
        queries = read_features(args.test)
        check_comparable(train, queries)
        results['test'] = len(queries.labels)
    similarities = cosines(queries, train)
    if args.test:
        own = cosines(train, train)
        top1, c = linear_svm(own, train.labels, similarities, queries.labels, args.C)
        results['linear SVM'] = dict(top1=top1, C=c)
    results['retrieval'] = retrieval(
        similarities, queries.labels, train.labels, same=args.test is None
    )
    print(json.dumps(results, indent=2))


if __name__ == '__main__':
    run(main)
