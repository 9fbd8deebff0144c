"""Metrics that tools/reproduce.py compares runs by, as claims.yml declares them.

A metric is a mapping. One of these keys says what it is, the others are its arguments:

- ``curve``: a validation metric in the log, behind the last epoch, times ``scale``. With
  ``target``, a list of networks: the epochs to the best of their mean final values, one more than
  all for a run that does not reach it. With ``seconds``, those of the training steps in them.
- ``bands``: a quantity of LandscapeHook, its range over the steps, averaged over the training.
- ``file`` and ``key``: a number in a JSON file of the folder.
- ``classifier``: a column of robustness.json, such as mCE, normalized by the mean of ``baseline``.
- ``detector``: P, mPC or rPC in robustness.json, in percent, of box AP or of ``of``.
"""

import math
from statistics import fmean

import numpy as np
import torch
from benchmarks.measure import interleave
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope

from gcp_mm._io import read_json, read_jsonl
from gcp_mm.robustness.baseline import mean_of
from gcp_mm.robustness.detection import performance
from gcp_mm.robustness.report import summarize
from gcp_mm.robustness.results import read_results, robustness_of
from gcp_mm.studies.curves import first_reaching, validation_curve
from gcp_mm.studies.landscape_hook import FILE


def measure(metric, runs):
    """Values of a metric.

    Args:
        metric: a mapping of claims.yml.
        runs: {network: [run of each seed]}.

    Returns:
        {network: [value of each seed]}.
    """
    (kind,) = metric.keys() & KINDS.keys()
    return KINDS[kind](metric, runs)


def final(curve):
    """Value behind the last epoch."""
    return curve[max(curve)]


def of_curve(metric, runs):
    curves = {
        name: [validation_curve(run.folder, metric['curve']) for run in each]
        for name, each in runs.items()
    }
    if 'target' in metric:
        epochs = epochs_to(metric['target'], curves)
        if not metric.get('seconds'):
            return epochs
        seconds = epoch_seconds({name: each[0] for name, each in runs.items()})
        return {name: [seconds[name] * n for n in each] for name, each in epochs.items()}
    scale = metric.get('scale', 1)
    return {name: [scale * final(curve) for curve in each] for name, each in curves.items()}


def epochs_to(target, curves):
    """Epochs to the highest mean final value of the networks in `target`."""
    level = max(fmean(map(final, curves[name])) for name in target)
    return {
        name: [first_reaching(curve, level) or max(curve) + 1 for curve in each]
        for name, each in curves.items()
    }


def epoch_seconds(runs):
    """Seconds of the training steps of an epoch, {network: seconds}: one thread, in turns."""
    torch.set_num_threads(1)
    steps, counts = {}, {}
    for name, run in runs.items():
        steps[name], counts[name] = training_step(Config.fromfile(run.config))
    seconds = interleave(steps, 10, torch.device('cpu'))
    return {name: seconds[name] * count for name, count in counts.items()}


def training_step(cfg):
    """A training step on the first images, a function; and how many of them are an epoch."""
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    batch = cfg.train_dataloader.batch_size
    data = pseudo_collate([dataset[k] for k in range(batch)])
    return lambda: model.train_step(data, optimizer), math.ceil(len(dataset) / batch)


def of_bands(metric, runs):
    def mean_range(run):
        lines = read_jsonl(run.folder / FILE, iter=int, **{metric['bands']: list})
        by_step = {line['iter']: np.ptp(line[metric['bands']]) for line in lines}
        return fmean(map(float, by_step.values()))

    return {name: [mean_range(run) for run in each] for name, each in runs.items()}


def of_file(metric, runs):
    return {
        name: [read_json(run.folder / metric['file'])[metric['key']] for run in each]
        for name, each in runs.items()
    }


def of_classifier(metric, runs):
    found = {
        name: [robustness_of(read_results(run.folder / 'robustness.json')) for run in each]
        for name, each in runs.items()
    }
    baseline = mean_of(metric['baseline'], found[metric['baseline']])
    return {
        name: [summarize(each, baseline)[0][metric['classifier']] for each in of_seeds]
        for name, of_seeds in found.items()
    }


def of_detector(metric, runs):
    def value(run):
        parts = read_results(run.folder / 'robustness.json')['parts']
        return 100 * performance(parts)[metric.get('of', 'coco/bbox_mAP')][metric['detector']]

    return {name: [value(run) for run in each] for name, each in runs.items()}


KINDS = {
    'curve': of_curve,
    'bands': of_bands,
    'file': of_file,
    'classifier': of_classifier,
    'detector': of_detector,
}
