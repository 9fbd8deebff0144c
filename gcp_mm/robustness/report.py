"""Tables and pictures of robustness: of classifiers in percent of a baseline and raw."""

from collections.abc import Mapping, Sequence
from math import nan, sqrt
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.stats import t as student

from .._io import markdown_table, number, spread, write_figure
from .baseline import Robustness, mean_percent, percent_of
from .errors import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SCENE_PARTS,
    SEVERITIES,
    corruption_errors,
    mean_errors,
    performance,
)
from .stability import PERTURBATIONS

# The columns of Table 4 of https://arxiv.org/abs/2003.11241, each a mean: of a ratio in `details`,
# over these corruptions or perturbations; and the quantity for messages
NORMALIZED = {
    'mCE': ('CE', CORRUPTIONS, 'corruption error'),
    'Rel. mCE': ('Rel. CE', CORRUPTIONS, 'error above the clean one'),
    'mFR': ('FR', PERTURBATIONS, 'flip probability'),
    'mT5D': ('T5D', PERTURBATIONS, 'top-5 distance'),
}
# The raw numbers behind them, with their decimal places
RAW = {'clean error': 2, 'error': 2, 'flip probability': 2, 'top-5 distance': 3}
PANELS = {'CE': CORRUPTIONS + EXTRA_CORRUPTIONS, 'FR': PERTURBATIONS, 'T5D': PERTURBATIONS}


def summarize(network: Robustness, baseline: Robustness) -> tuple[dict[str, float], list[str]]:
    """The columns of the tables.

    Args:
        network: raw numbers.
        baseline: numbers to divide by.

    Returns:
        The value of each of `NORMALIZED` in percent and of each of `RAW` (errors and probabilities
        in percent, over the benchmark's 15 corruptions and 10 perturbations), NaN where it does
        not exist; and notes, such as the reasons.
    """
    errors, clean = network.corruption_error, network.clean_error
    flips, distances = network.flip_probability, network.top5_distance
    summary, notes = dict.fromkeys([*NORMALIZED, *RAW], nan), []
    if clean is not None:
        summary['clean error'] = 100 * clean
    if errors:
        summary['error'] = 100 * mean_over(CORRUPTIONS, mean_errors(errors))
    if flips:
        summary['flip probability'] = 100 * mean_over(PERTURBATIONS, flips)
        summary['top-5 distance'] = mean_over(PERTURBATIONS, distances)
    ratios = details(network, baseline)
    for column, (key, names, what) in NORMALIZED.items():
        try:
            if ratios[key]:
                summary[column] = mean_percent(ratios[key], names, what)
        except ValueError as error:
            notes.append(f'no {column}: {error}')
    if errors and not ratios['Rel. CE']:
        which = 'the network' if clean is None else f'the baseline {baseline.name}'
        notes.append(f'no Rel. mCE: {which} has no clean error')
    if network.regenerated:
        made = ' and '.join(network.regenerated)
        notes.append(
            f'{made} regenerated, not official: comparable only with results on the same files'
        )
    return summary, notes


def mean_over(names: Sequence[str], values: Mapping[str, float]) -> float:
    """Mean over `names`, NaN if one has no value."""
    return fmean(values.get(name, nan) for name in names)


def details(network: Robustness, baseline: Robustness) -> dict[str, dict[str, float]]:
    """CE, relative CE, FR and T5D in percent by corruption or perturbation, NaN where undefined."""
    errors, relative = network.corruption_error, {}
    if network.clean_error is not None and baseline.clean_error is not None:
        relative = corruption_errors(errors, baseline, network.clean_error, baseline.clean_error)
    return {
        'CE': corruption_errors(errors, baseline),
        'Rel. CE': relative,
        'FR': percent_of(network.flip_probability, baseline.flip_probability),
        'T5D': percent_of(network.top5_distance, baseline.top5_distance),
    }


def report(network: Robustness, baseline: Robustness, parts: Mapping[str, dict] = {}) -> str:
    """A page in Markdown about one network.

    Args:
        network: raw numbers.
        baseline: numbers to divide by.
        parts: parts of the results, for intervals of the perturbations, and whose skipped files are
            listed.
    """
    ratio = details(network, baseline)
    means = mean_errors(network.corruption_error)
    page = [f'# Robustness of {network.name}', compare({network.name: [network]}, baseline)]
    corruptions = []
    for name, error in network.corruption_error.items():
        label = f'{name} (not in mCE)' if name in EXTRA_CORRUPTIONS else name
        raw = [number(100 * value) for value in (*error, means[name])]
        ratios = [number(ratio[key].get(name, nan)) for key in ('CE', 'Rel. CE')]
        corruptions.append([label, *raw, *ratios])
    if corruptions:
        page += [
            '## Corruptions',
            'Top-1 error (%) by severity and over all; CE and relative CE in percent of '
            f'{baseline.name}.',
            markdown_table(['corruption', *SEVERITIES, 'mean', 'CE', 'Rel. CE'], corruptions),
        ]
    perturbations = []
    for name, flips in network.flip_probability.items():
        groups = parts.get(f'imagenet-p/{name}', {}).get('groups', {})
        raw = [
            _with_interval(100 * flips, groups.get('flip_probability', ()), 2, 100),
            _with_interval(network.top5_distance[name], groups.get('top5_distance', ()), 3),
        ]
        perturbations.append([name, *raw, *(number(ratio[key][name]) for key in ('FR', 'T5D'))])
    if perturbations:
        page += [
            '## Perturbations',
            'Flip probability (%) and mean top-5 distance (0 to 18); FR and T5D in percent of '
            f'{baseline.name}. ± is half of an interval of 95 % over the sequences.'
            f'{_intervals_of_means(parts, baseline)}',
            markdown_table(['perturbation', 'FP', 'uT5D', 'FR', 'T5D'], perturbations),
        ]
    page += _left_out('files', [item for part in parts.values() for item in part['skipped']])
    return '\n\n'.join(page) + '\n'


def _with_interval(value, groups, digits, scale=1):
    """A mean over files and, where the means over groups of them are known, half its interval."""
    half = f' ± {scale * _half_interval(groups):.{digits}f}' if len(groups) > 1 else ''
    return number(value, digits) + half


def _half_interval(groups):
    """Half of the 95 % interval of a mean, from the means over groups of about equal size."""
    quantile = float(student.ppf(0.975, len(groups) - 1))
    return quantile * float(np.std(groups, ddof=1)) / sqrt(len(groups))


def _intervals_of_means(parts, baseline):
    """A sentence on the intervals of mFR and mT5D, if all perturbations have the same groups."""
    found = [parts.get(f'imagenet-p/{name}', {}) for name in PERTURBATIONS]
    counts = {part.get('files', 0) + len(part.get('skipped', ())) for part in found}
    if len(counts) > 1 or not all(part.get('groups') for part in found) or counts == {1}:
        return ''
    halves = []
    for key in ('flip_probability', 'top5_distance'):
        reference = getattr(baseline, key)
        # A group is of the same images in every perturbation, so that what their errors have in
        # common is in its mean.
        ratios = [
            np.divide(part['groups'][key], reference.get(name) or nan)
            for name, part in zip(PERTURBATIONS, found, strict=True)
        ]
        halves.append(number(_half_interval(100 * np.mean(ratios, 0))))
    return f' That of mFR is {halves[0]}, that of mT5D {halves[1]}.'


def report_detector(results: Mapping) -> str:
    """A page in Markdown about the results of one detector.

    Besides P, mPC and rPC of every metric it has a table of each metric that is a mean over
    thresholds, such as 'coco/bbox_mAP'; of all metrics if none is.
    """
    parts = results['parts']
    summary = performance(parts)
    rows = [
        [metric, number(found['P'], 3), number(found['mPC'], 3), number(100 * found['rPC'], 1)]
        for metric, found in summary.items()
    ]
    page = [
        f'# Robustness of {results["name"]}',
        f'{results["images"]} images. P: clean. mPC: mean over the {len(CORRUPTIONS)} corruptions '
        f'and {len(SEVERITIES)} severities. rPC = mPC / P, in percent. Higher is better.',
        markdown_table(['metric', 'P', 'mPC', 'rPC'], rows),
    ]
    if absent := [key for key in SCENE_PARTS if key not in parts]:
        first = ', '.join(absent[:5]) + (', ...' if len(absent) > 5 else '')
        page.append(f'- no mPC: {len(absent)} of {len(SCENE_PARTS)} parts missing: {first}')
    measured = [name for name in CORRUPTIONS if any(f'{name}/{s}' in parts for s in SEVERITIES)]
    for metric in [each for each in summary if each.endswith('mAP')] or list(summary):
        rows = []
        for name in measured:
            found = [parts.get(f'{name}/{severity}', {metric: nan}) for severity in SEVERITIES]
            values = [part[metric] for part in found]
            rows.append([name, *(number(value, 3) for value in (*values, fmean(values)))])
        if rows:
            page += [f'## {metric}', markdown_table(['corruption', *SEVERITIES, 'mean'], rows)]
    page += _left_out('images', results['skipped'])
    return '\n\n'.join(page) + '\n'


def _left_out(kind, skipped):
    """The sections of a page about files that were left out, each with its reason."""
    reasons = [f'- {item["reason"]}' for item in skipped]
    return [f'## {len(reasons)} {kind} left out', '\n'.join(reasons)] if reasons else []


def compare(groups: Mapping[str, Sequence[Robustness]], baseline: Robustness) -> str:
    """Tables in Markdown: normalized and raw columns of several networks, and notes.

    Args:
        groups: by label, a network or several runs of it, of which the mean and the sample standard
            deviation are given.
        baseline: numbers to divide by.
    """
    summaries = {
        label: [summarize(network, baseline) for network in runs] for label, runs in groups.items()
    }
    notes = {}  # labels by text
    for label, runs in summaries.items():
        for note in [note for _, reasons in runs for note in reasons]:
            notes.setdefault(note, {})[label] = None

    def table(columns):
        rows = [
            [label, *(spread([s[name] for s, _ in runs], n) for name, n in columns.items())]
            for label, runs in summaries.items()
        ]
        return markdown_table(['network', *columns], rows)

    counts = {len(runs) for runs in groups.values()}
    several = ''
    if counts != {1}:
        runs = '-'.join(map(str, sorted({min(counts), max(counts)})))
        several = f' Mean ± standard deviation of {runs} runs.'
    sections = [
        f'In percent of {baseline.name}; lower is better.{several}',
        table(dict.fromkeys(NORMALIZED, 1)),
        'Raw: top-1 error and flip probability in percent, top-5 distance from 0 to 18; means over '
        f'the {len(CORRUPTIONS)} corruptions and {len(PERTURBATIONS)} perturbations of the '
        'benchmarks.',
        table(RAW),
        '\n'.join(f'- {", ".join(labels)}: {note}' for note, labels in notes.items()),
    ]
    return '\n\n'.join(filter(None, sections))


def plot(
    groups: Mapping[str, Sequence[Robustness]], baseline: Robustness, path: str | Path
) -> None:
    """Draw CE, FR and T5D of several networks as bars, one panel each.

    Args:
        groups: by label, a network or several runs of it: a bar is their mean, with an error bar of
            one sample standard deviation.
        baseline: numbers to divide by; the line at 100.
        path: path of the PNG.

    Raises:
        ValueError: if there is nothing to draw.
    """
    from matplotlib.figure import Figure

    ratios = {
        label: [details(network, baseline) for network in runs] for label, runs in groups.items()
    }
    panels = {}
    for key, names in PANELS.items():
        measured = {name for runs in ratios.values() for each in runs for name in each[key]}
        if measured:
            panels[key] = [name for name in names if name in measured]
    if not panels:
        raise ValueError('nothing to draw: no network has results of a benchmark')
    figure = Figure(figsize=(13, 3.2 * len(panels)), layout='constrained')
    axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    width = 0.8 / len(groups)
    for axis, (key, names) in zip(axes, panels.items(), strict=True):
        centers = np.arange(len(names))
        for i, (label, runs) in enumerate(ratios.items()):
            values = [[each[key].get(name, nan) for name in names] for each in runs]
            deviation = np.std(values, 0, ddof=1) if len(runs) > 1 else None
            left = centers + (i - len(groups) / 2) * width
            axis.bar(left, np.mean(values, 0), width, align='edge', yerr=deviation, label=label)
        axis.axhline(100, color='gray', ls='--', lw=1, label=baseline.name)
        axis.set_xticks(centers, [name.replace('_', '\n') for name in names], fontsize='small')
        axis.set_ylabel(f'{key}, % of {baseline.name}')
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc='outside upper center', ncols=len(groups) + 1)
    write_figure(path, figure, dpi=150)
