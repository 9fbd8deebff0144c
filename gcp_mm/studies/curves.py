"""Convergence curves, from what mmengine logs of runs, and figures of them and of learning rates.

Figures 1, 3, 4 and 5 and the last column of Table 2 of Wang et al., What Deep CNNs Benefit from
Global Covariance Pooling: An Optimization Perspective, CVPR 2020,
https://arxiv.org/abs/2003.11241.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, median

import numpy as np
from matplotlib.figure import Figure

from .._io import read_jsonl, write_figure


def validation_curve(run_dir: str | Path, metric: str = 'accuracy/top1') -> dict[int, float]:
    """A validation metric after each epoch of a run.

    Args:
        run_dir: the run's work dir. Where the run was resumed, later values replace earlier ones.
        metric: its name in the log.

    Returns:
        {epoch: value}, epochs counted from 1.

    Raises:
        FileNotFoundError: if there is no log.
        ValueError: if the log does not hold the metric.
    """
    curve = {step: line[metric] for step, line in _logged(run_dir, metric).items()}
    if not curve:
        raise ValueError(
            f'{str(run_dir)!r}: no validation has logged the metric {metric!r}; the names are in '
            'its */vis_data/scalars.json'
        )
    return curve


def training_curve(run_dir: str | Path, metric: str = 'accuracy/top1') -> dict[int, float]:
    """Mean over each epoch of what the training steps logged.

    Args:
        run_dir: as in :func:`validation_curve`.
        metric: such as 'loss', or 'accuracy/top1' of a classifier.

    Returns:
        {epoch: value}, empty where nothing was logged: a head logs its training accuracy, in
        percent, with ``cal_acc=True``.
    """
    key = metric.replace('/top', '_top-')  # heads log 'accuracy_top-1'
    by_epoch = defaultdict(list)
    for line in _logged(run_dir, key).values():
        if 'epoch' in line:
            by_epoch[line['epoch']].append(line[key])
    return {epoch: fmean(values) for epoch, values in sorted(by_epoch.items())}


def first_reaching(curve: dict[int, float], target: float) -> int | None:
    """First epoch whose value is at least `target`, or None."""
    return min((epoch for epoch, value in curve.items() if value >= target), default=None)


def panels(
    columns: int, rows: int = 1, width: float = 4.5, height: float = 4
) -> tuple[Figure, np.ndarray]:
    """A figure, and its axes, (rows, columns), each `width` times `height` inches."""
    figure = Figure(figsize=(1 + width * columns, height * rows), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.grid(alpha=0.3)
    return figure, axes


def plot_curves(
    path: str | Path,
    curves: dict[str, dict[str, list[dict[int, float]]]],
    ylabel: str,
    target: tuple[str, float] | None = None,
) -> None:
    """Draw the curve of each network; of several runs their median and their range.

    Args:
        path: of the picture.
        curves: {panel: {network: [{epoch: value} of each run]}}; runs of a network of equal epochs.
        ylabel: what the values are.
        target: label and value of a level the curves are to reach.
    """
    figure, (row,) = panels(len(curves))
    for axes, (title, networks) in zip(row, curves.items(), strict=True):
        for name, runs in networks.items():
            epochs = sorted(runs[0])
            values = [[run[epoch] for run in runs] for epoch in epochs]
            (line,) = axes.plot(epochs, [*map(median, values)], 'o-', markersize=4, label=name)
            low, high = [*map(min, values)], [*map(max, values)]
            axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.2, lw=0)
        if target:
            axes.axhline(target[1], color='gray', ls='--', lw=1, label=target[0])
        axes.set(title=title, xlabel='epoch', ylabel=ylabel)
        axes.xaxis.get_major_locator().set_params(integer=True)
    row[0].legend()
    write_figure(path, figure, dpi=120)


def plot_learning_rates(
    path: str | Path, curves: dict[str, tuple[Iterable[float], Iterable[float]]]
) -> None:
    """Draw what :func:`gcp_mm.checks.learning_rates` gives, {name: (epochs, rates)}."""
    figure, ((axes,),) = panels(1, width=5)
    axes.set(xlabel='epoch', ylabel='learning rate')
    for i, (name, (epochs, rates)) in enumerate(curves.items()):
        width = 1.5 + 0.9 * (len(curves) - 1 - i)  # equal curves are seen beneath each other
        axes.plot(epochs, rates, drawstyle='steps-post', lw=width, label=name)
    figure.legend(loc='outside lower center', fontsize='small')
    write_figure(path, figure, dpi=150)


def _logged(run_dir, key):
    """Lines of the log that have `key`, {step: line}; each start overrides the earlier ones."""
    files = sorted(Path(run_dir).glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(
            f'{str(run_dir)!r}: there is no */vis_data/scalars.json in it; name the work dir of a '
            'training that has logged something'
        )
    joined = {}
    for file in files:
        lines = {line['step']: line for line in read_jsonl(file, step=int) if key in line}
        for line in lines.values():
            if not isinstance(line[key], int | float):
                text = f'step {line["step"]}: {key}: expected a number, got {line[key]!r}'
                raise ValueError(f'{str(file)!r}: {text}; delete the line')
        if lines:
            joined = {step: line for step, line in joined.items() if step < min(lines)} | lines
    return joined
