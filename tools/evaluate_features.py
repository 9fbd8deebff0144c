"""Evaluate feature vectors as they are, without training the network further.

TRAIN and TEST, files of tools/extract_features.py: top-1 accuracy on TEST of a linear classifier
that is trained on TRAIN, and retrieval with TEST as the queries and TRAIN as the gallery. TRAIN
alone: retrieval with each of its images as the query and all others as the gallery, which is how
embeddings are evaluated on classes that no network was trained on.
"""

import argparse
import json
from pathlib import Path

from gcp_mm.studies.feature_file import read_features
from gcp_mm.studies.feature_quality import check_comparable, cosines, linear_svm, retrieval


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('train', help='.npz file')
    parser.add_argument('test', nargs='?', help='.npz file of the same network and classes')
    parser.add_argument(
        '--C',
        nargs='+',
        type=float,
        default=[0.1, 1, 10, 100],
        help='of the linear SVMs on vectors of norm 1; of several, the one that is best on a fifth '
        'of TRAIN held out; default: 0.1 1 10 100',
    )
    parser.add_argument('--out', type=Path, help='write the results to this .json file')
    args = parser.parse_args()
    if args.out and args.out.suffix != '.json':
        parser.error(f'--out {args.out}: expected a file name that ends in .json')
    if min(args.C) <= 0:
        parser.error(f'--C {min(args.C):g}: expected positive numbers')
    return args


def evaluate(train, test, candidates):
    """The results as one dict; without `test`, of retrieval in `train`."""
    if test:
        check_comparable(train, test)
    queries = test or train
    similarities = cosines(queries, train)
    results = dict(
        stage=train.stage,
        length=train.length,
        classes=len(train.classes),
        train=len(train.labels),
    )
    if test:
        results['test'] = len(test.labels)
        top1, c = linear_svm(
            cosines(train, train), train.labels, similarities, test.labels, candidates
        )
        results['linear SVM'] = dict(top1=top1, C=c)
    results['retrieval'] = retrieval(similarities, queries.labels, train.labels, same=test is None)
    return results


def table(results):
    sizes = [f'{results[name]:,} {name}' for name in ('train', 'test') if name in results]
    yield 'features', f'{results["stage"]}, {results["length"]:,} numbers'
    yield 'images', f'{" and ".join(sizes)}, {results["classes"]} classes'
    if 'linear SVM' in results:
        yield 'linear SVM', '{top1:.2f} % top-1, C = {C:g}'.format(**results['linear SVM'])
    for name, value in results['retrieval'].items():
        yield name, f'{value:.2f} %'


def main():
    args = parse_args()
    if args.test and Path(args.test).resolve() == Path(args.train).resolve():
        raise ValueError(f'{args.test} is both TRAIN and TEST; one file alone ranks its own images')
    if args.out and not args.out.parent.is_dir():
        raise FileNotFoundError(f'--out: the folder {args.out.parent} does not exist')
    train = read_features(args.train)
    test = read_features(args.test) if args.test else None
    results = evaluate(train, test, args.C)
    for name, value in table(results):
        print(f'{name:<12}{value}')
    if args.out:
        args.out.write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
    main()
