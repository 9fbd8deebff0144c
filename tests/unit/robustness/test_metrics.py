"""The metrics of the benchmarks' parts."""

import numpy as np
import pytest
import torch
from mmengine.registry import METRICS

import gcp_mm  # noqa: F401


class Samples:
    """Data samples as a test loop hands them to a metric."""

    def __init__(self, metric, meta):
        self.metric = METRICS.build(metric)
        self.metric.dataset_meta = meta

    def add(self, index, logits=None, **fields):
        sample = dict(img_path=f'{index}.JPEG', **fields)
        if logits is not None:
            sample['logits'] = torch.as_tensor(logits)
        self.metric.process({}, [sample])
        return self

    def evaluate(self, size):
        return self.metric.evaluate(size)


def errors(**kwargs):
    return Samples(dict(type='CorruptionError', **kwargs), dict(classes=('a', 'b', 'c')))


def label(value):
    return dict(gt_label=value)


def test_corruption_error_counts_each_file_once():
    samples = errors().add(0, [3.0, 2, 1], **label(2)).add(1, [0.0, 2, 1], **label(1))
    samples.add(2, [3.0, 2, 1], **label(0))
    samples.add(0, [3.0, 2, 1], **label(2))  # repeated by a distributed sampler
    metrics = samples.evaluate(3)
    assert metrics == {
        'corruption/error': pytest.approx(1 / 3),
        'corruption/files': 3,
        'corruption/skipped': [],
    }


def test_nan_is_named_or_listed():
    with pytest.raises(ValueError, match=r'7\.JPEG: the network gives NaN'):
        errors().add(7, [0, np.nan, 0], **label(0))
    samples = errors(skip_bad=True).add(7, [0, np.nan, 0], **label(0))
    with pytest.raises(ValueError, match=r'all 1 files were skipped; 7\.JPEG: the network gives'):
        samples.evaluate(1)
    samples = errors(skip_bad=True).add(7, [0, np.nan, 0], **label(0)).add(8, unreadable='8: why')
    metrics = samples.add(9, [0, 1, 0], **label(0)).evaluate(3)
    assert metrics['corruption/error'] == 1
    assert metrics['corruption/files'] == 1
    assert metrics['corruption/skipped'] == [
        dict(file='7.JPEG', reason='7.JPEG: the network gives NaN'),
        dict(file='8.JPEG', reason='8: why'),
    ]


def test_wrong_number_of_classes_is_refused():
    with pytest.raises(ValueError, match=r'network has 2 classes and the data 3 \(a, b, c'):
        errors().add(0, [0.0, 1], **label(0))


@pytest.mark.parametrize(
    ('perturbation', 'difficulty', 'expected'),
    [('tilt', 1, 1), ('tilt', 2, 0), ('x_noise', 2, 2 / 3)],
)
def test_stability_follows_the_perturbation(perturbation, difficulty, expected):
    metric = dict(type='PerturbationStability', difficulty=difficulty)
    video = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    metrics = Samples(metric, dict(folder=perturbation)).add(0, video).evaluate(1)
    assert metrics['perturbation/flip_probability'] == pytest.approx(expected)
    assert metrics['perturbation/top5_distance'] == pytest.approx(2 * expected)
