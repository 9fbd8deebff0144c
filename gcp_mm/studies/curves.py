"""Convergence curves, from what mmengine logs of runs, and figures of them and of learning rates.

Figures 1, 3, 4 and 5 and the last column of Table 2 of Wang et al., What Deep CNNs Benefit from
Global Covariance Pooling: An Optimization Perspective, CVPR 2020,
https://arxiv.org/abs/2003.11241.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

# Under which name a training step logs, if the head has cal_acc=True, what validation logs.
TRAINING_METRICS = {'accuracy/top1': 'accuracy_top-1', 'accuracy/top5': 'accuracy_top-5'}


def validation_curve(run_dir: str | Path, metric: str = 'accuracy/top1') -> dict[int, float]:
    """A validation metric after each epoch of a run.

    Args:
        run_dir: the run's work dir. Where it was resumed, what the later start logged replaces
            what the earlier ones had from there on.
        metric: its name in the log.

    Returns:
        {epoch: value}, epochs counted from 1.

    Raises:
        FileNotFoundError: if there is no log.
        ValueError: if the log does not hold the metric.
    """
    curve = {step: line[metric] for step, line in _joined_lines(run_dir, metric).items()}
    if not curve:
        logged = {key for log in _read_logs(run_dir) for line in log for key in line}
        raise ValueError(
            f'{run_dir}: no validation has logged {metric!r}; logged are '
            f'{", ".join(sorted(logged))}'
        )
    return curve


def training_curve(run_dir: str | Path, metric: str = 'accuracy/top1') -> dict[int, float]:
    """Mean over each epoch of what its training steps logged of a validation metric.

    Args:
        run_dir: as in :func:`validation_curve`.
        metric: 'accuracy/top1' or 'accuracy/top5'; others are not logged in training.

    Returns:
        {epoch: percent}, empty where nothing was logged: a head logs its training accuracy with
        ``cal_acc=True``.
    """
    key = TRAINING_METRICS.get(metric)
    by_epoch = defaultdict(list)
    for line in _joined_lines(run_dir, key).values():
        by_epoch[line['epoch']].append(line[key])
    return {epoch: fmean(values) for epoch, values in sorted(by_epoch.items())}


def first_reaching(curve: dict[int, float], target: float) -> int | None:
    """First epoch whose value is at least `target`, or None."""
    return min((epoch for epoch, value in curve.items() if value >= target), default=None)


def plot_validation(
    path: str | Path,
    curves: dict[str, dict[int, float]],
    ylabel: str,
    training: dict[str, dict[int, float]] | None = None,
    target: tuple[str, float] | None = None,
) -> None:
    """Draw convergence curves, validation solid and training dashed.

    Args:
        path: of the picture.
        curves: {name: {epoch: value}}.
        ylabel: what the values are.
        training: likewise, with names of `curves`.
        target: label and value of a level the curves are to reach.
    """
    figure, axes = _figure('epoch', ylabel)
    axes.xaxis.get_major_locator().set_params(integer=True)
    for name, curve in curves.items():
        (line,) = axes.plot(*_points(curve), 'o-', markersize=4, label=name)
        if training and training.get(name):
            label = f'{name}, training'
            axes.plot(*_points(training[name]), '--', color=line.get_color(), label=label)
    if target:
        axes.axhline(target[1], color='grey', ls='--', lw=1, label=target[0])
    axes.legend()
    figure.savefig(path, dpi=150)


def plot_learning_rates(
    path: str | Path, curves: dict[str, tuple[Iterable[float], Iterable[float]]]
) -> None:
    """Draw what :func:`gcp_mm.checks.learning_rates` gives, {name: (epochs, rates)}."""
    figure, axes = _figure('epoch', 'learning rate')
    # Thinner and thinner: equal curves are seen beneath each other.
    widths = [1.5 + 0.9 * i for i in range(len(curves))][::-1]
    for width, (name, (epochs, rates)) in zip(widths, curves.items(), strict=True):
        epochs, rates = list(epochs), list(rates)
        end = 2 * epochs[-1] - epochs[-2] if len(epochs) > 1 else epochs[-1] + 1
        axes.step([*epochs, end], [*rates, rates[-1]], where='post', lw=width, label=name)
    figure.legend(loc='outside lower center', fontsize='small')
    figure.savefig(path, dpi=150)


def _figure(xlabel, ylabel):
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    return figure, axes


def _points(curve):
    return zip(*sorted(curve.items()), strict=True)


def _read_logs(run_dir):
    """Logged lines of every start of a run, in the order of the starts."""
    files = sorted(Path(run_dir).glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(
            f'{run_dir}: there is no */vis_data/scalars.json in it; name the work dir of a '
            'training that has logged something'
        )
    return [_read_lines(file) for file in files]


def _read_lines(file):
    # A line is whole if it ends: a kill may cut the last one.
    lines = []
    for number, line in enumerate(file.read_text().split('\n')[:-1], 1):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f'{file}, line {number}: {error}; delete the line') from error
    return lines


def _joined_lines(run_dir, key):
    """The lines that have `key`, {step: line}; each start overrides the earlier ones."""
    joined = {}
    for log in _read_logs(run_dir):
        lines = {line['step']: line for line in log if key in line}
        if lines:
            joined = {step: line for step, line in joined.items() if step < min(lines)} | lines
    return joined
