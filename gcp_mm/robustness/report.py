"""Tables of robustness: of classifiers in percent of a baseline and raw, and of detectors."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import nan
from statistics import fmean

from .._io import markdown_table, number, spread
from .baseline import Robustness, percent_of
from .errors import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SCENE_PARTS,
    SEVERITIES,
    corruption_errors,
    mean_corruption_error,
    mean_errors,
    performance,
    relative_corruption_errors,
    relative_mean_corruption_error,
)
from .stability import PERTURBATIONS, mean_flip_rate, mean_top5_distance

# The columns of Table 4 of https://arxiv.org/abs/2003.11241, and the raw numbers behind them, with
# their decimal places
NORMALIZED = {'mCE': 1, 'Rel. mCE': 1, 'mFR': 1, 'mT5D': 1}
RAW = {'clean error': 2, 'error': 2, 'flip probability': 2, 'top-5 distance': 3}


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
    means = {}
    if clean is not None:
        summary['clean error'] = 100 * clean
    if errors:
        means['mCE'] = partial(mean_corruption_error, errors, baseline)
        means['Rel. mCE'] = partial(relative_mean_corruption_error, errors, clean, baseline)
        summary['error'] = 100 * mean_over(CORRUPTIONS, mean_errors(errors))
    if flips:
        means['mFR'] = partial(mean_flip_rate, flips, baseline)
        means['mT5D'] = partial(mean_top5_distance, distances, baseline)
        summary['flip probability'] = 100 * mean_over(PERTURBATIONS, flips)
        summary['top-5 distance'] = mean_over(PERTURBATIONS, distances)
    for name, mean in means.items():
        try:
            summary[name] = mean()
        except ValueError as error:
            notes.append(f'no {name}: {error}')
    if made := network.provenance.get('regenerated'):
        notes.append(
            f'{" and ".join(made)} regenerated, not official: comparable only with results on the '
            'same files'
        )
    return summary, notes


def mean_over(names: Sequence[str], values: Mapping[str, float]) -> float:
    """Mean over `names`, NaN if one has no value."""
    return fmean(values.get(name, nan) for name in names)


def report(network: Robustness, baseline: Robustness, parts: Mapping[str, dict] = {}) -> str:
    """A page in Markdown about one network.

    Args:
        network: raw numbers.
        baseline: numbers to divide by.
        parts: parts of the results, whose skipped files are listed.
    """
    errors, clean = network.corruption_error, network.clean_error
    ratios, relative = corruption_errors(errors, baseline), {}
    if clean is not None and baseline.clean_error is not None:
        relative = relative_corruption_errors(errors, clean, baseline)
    means = mean_errors(errors)
    page = [f'# Robustness of {network.name}', compare({network.name: [network]}, baseline)]
    corruptions = []
    for name, error in errors.items():
        label = f'{name} (not in mCE)' if name in EXTRA_CORRUPTIONS else name
        raw = [number(100 * value) for value in (*error, means[name])]
        corruptions.append([label, *raw, number(ratios[name]), number(relative.get(name, nan))])
    if corruptions:
        page += [
            '## Corruptions',
            'Top-1 error (%) by severity and over all; CE and relative CE in percent of '
            f'{baseline.name}.',
            markdown_table(['corruption', *SEVERITIES, 'mean', 'CE', 'Rel. CE'], corruptions),
        ]
    flips, distances = network.flip_probability, network.top5_distance
    flip_rates = percent_of(flips, baseline.flip_probability)
    distance_rates = percent_of(distances, baseline.top5_distance)
    perturbations = []
    for name in flips:
        label = name if name in PERTURBATIONS else f'{name} (not in mFR, mT5D)'
        raw = [number(100 * flips[name]), number(distances[name], 3)]
        perturbations.append([label, *raw, number(flip_rates[name]), number(distance_rates[name])])
    if perturbations:
        page += [
            '## Perturbations',
            'Flip probability (%) and mean top-5 distance (0 to 18); FR and T5D in percent of '
            f'{baseline.name}.',
            markdown_table(['perturbation', 'FP', 'uT5D', 'FR', 'T5D'], perturbations),
        ]
    page += _left_out('files', [item for part in parts.values() for item in part['skipped']])
    return '\n\n'.join(page) + '\n'


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

    count = max(map(len, groups.values()))
    several = f' Mean ± standard deviation of {count} runs.' if count > 1 else ''
    sections = [
        f'In percent of {baseline.name}; lower is better.{several}',
        table(NORMALIZED),
        'Raw: top-1 error and flip probability in percent, top-5 distance from 0 to 18; means over '
        f'the {len(CORRUPTIONS)} corruptions and {len(PERTURBATIONS)} perturbations of the '
        'benchmarks.',
        table(RAW),
        '\n'.join(f'- {", ".join(labels)}: {note}' for note, labels in notes.items()),
    ]
    return '\n\n'.join(filter(None, sections))
