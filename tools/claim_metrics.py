"""Metrics that tools/reproduce.py compares runs by, as claims.yml declares them.

A metric is a mapping. One of these keys says what it is, the others are its arguments:

- ``curve``: a validation metric in the log, after the last epoch, times ``scale``. With ``target``,
  a list of networks: the epochs to the best of their mean final values, one more than all for a run
  that does not reach it. With ``seconds``, the time that the training steps of those epochs take,
  at most that of one epoch more than all of the fastest network from the same seed.
- ``bands``: a quantity of LandscapeHook, its range over the steps, averaged over the training.
- ``file`` and ``key``: a number in a JSON file of the folder.
- ``classifier``: a column of robustness.json, such as mCE, normalized by the mean of ``baseline``.
- ``detector``: P, mPC or rPC of the box AP in robustness.json, in percent.

``lower`` says that a lower value is better.
"""

import json
import math
from statistics import fmean

import numpy as np
import torch
from benchmarks.measure import interleave
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, init_default_scope
from tqdm import tqdm

from gcp_mm import get_model
from gcp_mm._io import read_json, read_jsonl, write_atomically
from gcp_mm.robustness.baseline import mean_of
from gcp_mm.robustness.errors import performance
from gcp_mm.robustness.report import NORMALIZED, RAW, summarize
from gcp_mm.robustness.results import read_results, robustness_of
from gcp_mm.runtime import read_config
from gcp_mm.studies.curves import first_reaching, validation_curve
from gcp_mm.studies.landscape import FILE

SECONDS = 'seconds.json'  # of an epoch, in the folder of a run


def measure(metric, runs):
    """Values of a metric.

    Args:
        metric: a mapping of claims.yml.
        runs: {network: [run of each seed]}.

    Returns:
        {network: [value of each seed]}.
    """
    (kind,) = metric.keys() & KINDS.keys()
    return KINDS[kind][0](metric, runs)


def check_metric(metric, where):
    """Raise ValueError unless a metric is one of KINDS with its arguments."""
    kinds = sorted(metric.keys() & KINDS.keys())
    if len(kinds) != 1:
        raise ValueError(f'{where}: expected one of {[*KINDS]}, got {kinds}')
    _, arguments, values = KINDS[kinds[0]]
    if unknown := metric.keys() - {kinds[0], 'lower', *arguments}:
        raise ValueError(f'{where}: expected keys in {[*arguments, "lower"]}, got {[*unknown]}')
    if values and metric[kinds[0]] not in values:
        raise ValueError(f'{where}: {kinds[0]}: expected one of {values}, got {metric[kinds[0]]!r}')


def final(curve):
    """Value after the last epoch."""
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
        time_epochs([run for each in runs.values() for run in each])
        seconds = {
            name: [read_json(run.folder / SECONDS)['seconds'] for run in each]
            for name, each in runs.items()
        }
        return seconds_to(epochs, curves, seconds)
    scale = metric.get('scale', 1)
    return {name: [scale * final(curve) for curve in each] for name, each in curves.items()}


def epochs_to(target, curves):
    """Epochs to the highest mean final value of the networks in `target`."""
    level = max(fmean(map(final, curves[name])) for name in target)
    return {
        name: [first_reaching(curve, level) or max(curve) + 1 for curve in each]
        for name, each in curves.items()
    }


def seconds_to(epochs, curves, seconds):
    """Seconds of the training steps of some epochs, of which each run has its length.

    At most those that the fastest network takes, from the same seed, for one epoch more than all:
    runs that do not reach the target are equal, however long their epochs.
    """
    whole = {
        name: [(max(curve) + 1) * one for curve, one in zip(of_seeds, seconds[name], strict=True)]
        for name, of_seeds in curves.items()
    }
    ends = [min(of_seed) for of_seed in zip(*whole.values(), strict=True)]
    return {
        name: [min(n * one, end) for n, one, end in zip(each, seconds[name], ends, strict=True)]
        for name, each in epochs.items()
    }


def time_epochs(runs):
    """Time the training steps of an epoch of each run, one thread, in turns: of all, or of none."""
    if all((run.folder / SECONDS).exists() for run in runs):
        return
    for run in runs:  # times of one session only are compared
        (run.folder / SECONDS).unlink(missing_ok=True)
    torch.set_num_threads(1)
    steps = {run: training_step(read_config(run.config)) for run in runs}
    timed = {run: step for run, (step, _) in steps.items()}
    for run, seconds in interleave(timed, 10, torch.device('cpu'), progress=tqdm).items():
        content = {'seconds': seconds * steps[run][1]}
        write_atomically(run.folder / SECONDS, json.dumps(content).encode())


def training_step(cfg):
    """A training step on the first images, a function; and how many of them are an epoch."""
    init_default_scope(cfg.default_scope)
    cfg.optim_wrapper.optimizer.lr = 0  # as long a step, and no network diverges on one batch
    model = get_model(cfg).train()
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
        return 100 * performance(parts)['coco/bbox_mAP'][metric['detector']]

    return {name: [value(run) for run in each] for name, each in runs.items()}


KINDS = {  # function, arguments, and what the value may be where that is known
    'curve': (of_curve, ('scale', 'target', 'seconds'), ()),
    'bands': (of_bands, (), ('losses', 'gradient_distances')),
    'file': (of_file, ('key',), ()),
    'classifier': (of_classifier, ('baseline',), (*NORMALIZED, *RAW)),
    'detector': (of_detector, (), ('P', 'mPC', 'rPC')),
}
