"""Tables and pictures of robustness, normalised by a baseline and raw."""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from statistics import fmean, stdev

from .baseline import Robustness, mean_error
from .errors import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    corruption_errors,
    mean_corruption_error,
    relative_corruption_errors,
    relative_mean_corruption_error,
)
from .stability import (
    PERTURBATIONS,
    flip_rates,
    mean_flip_rate,
    mean_top5_distance,
    top5_distance_rates,
)

# The columns of Table 4 of https://arxiv.org/abs/2003.11241, and the raw numbers behind them
NORMALISED = ('mCE', 'Rel. mCE', 'mFR', 'mT5D')
RAW = ('clean error', 'error', 'flip probability', 'top-5 distance')


def summarise(network: Robustness, baseline: Robustness) -> tuple[dict[str, float], list[str]]:
    """The columns of the tables.

    Args:
        network: raw numbers.
        baseline: those that normalise.

    Returns:
        The value of each of `NORMALISED` in percent and of each of `RAW` (errors and probabilities
        in percent, over the benchmark's 15 corruptions and 10 perturbations), NaN where it does
        not exist; and why those do not.
    """
    errors, flips = network.corruption_error, network.flip_probability
    distances, notes = network.top5_distance, []

    def attempt(name, function, *args):
        try:
            return function(*args)
        except ValueError as error:
            notes.append(f'no {name}: {error}')
            return nan

    summary = dict.fromkeys(NORMALISED + RAW, nan)
    if network.clean_error is not None:
        summary['clean error'] = 100 * network.clean_error
    if errors:
        summary['mCE'] = attempt('mCE', mean_corruption_error, errors, baseline)
        if network.clean_error is None:
            notes.append('no Rel. mCE: it needs the clean error (--clean)')
        else:
            summary['Rel. mCE'] = attempt(
                *('Rel. mCE', relative_mean_corruption_error),
                *(errors, network.clean_error, baseline),
            )
        means = {name: mean_error(name, error) for name, error in errors.items()}
        summary['error'] = 100 * mean_over(CORRUPTIONS, means)
    if flips:
        summary['mFR'] = attempt('mFR', mean_flip_rate, flips, baseline)
        summary['mT5D'] = attempt('mT5D', mean_top5_distance, distances, baseline)
        summary['flip probability'] = 100 * mean_over(PERTURBATIONS, flips)
        summary['top-5 distance'] = mean_over(PERTURBATIONS, distances)
    return summary, notes


def mean_over(names: Iterable[str], values: Mapping[str, float]) -> float:
    """Mean over `names`, NaN if one has no value."""
    return fmean(values.get(name, nan) for name in names)


def details(network: Robustness, baseline: Robustness) -> dict[str, dict[str, float]]:
    """CE, relative CE, FR and T5D of what both networks were measured on, in percent, by name."""

    def shared(field):
        return [n for n in getattr(network, field) if n in getattr(baseline, field)]

    names = shared('corruption_error')
    relative = {}
    if network.clean_error is not None and baseline.clean_error is not None:
        relative = relative_corruption_errors(
            network.corruption_error, network.clean_error, baseline, names
        )
    return {
        'CE': corruption_errors(network.corruption_error, baseline, names),
        'Rel. CE': relative,
        'FR': flip_rates(network.flip_probability, baseline, shared('flip_probability')),
        'T5D': top5_distance_rates(network.top5_distance, baseline, shared('top5_distance')),
    }


def normalised(network: Robustness, baseline: Robustness) -> dict:
    """All numbers of :func:`summarise` and :func:`details` as JSON types, None for NaN."""

    def without_nan(numbers):
        return {name: value if isfinite(value) else None for name, value in numbers.items()}

    summary, notes = summarise(network, baseline)
    tables = {key: without_nan(ratios) for key, ratios in details(network, baseline).items()}
    return dict(baseline=baseline.name, **without_nan(summary), **tables, notes=notes)


def report(network: Robustness, baseline: Robustness, parts: Mapping[str, dict] = {}) -> str:
    """A page in Markdown about one network.

    Args:
        network: its raw numbers.
        baseline: those that normalise.
        parts: of the results, whose skipped files are listed.
    """
    rows = [f'# Robustness of {network.name}', '', *compare({network.name: [network]}, baseline)]
    ratio = details(network, baseline)
    if network.corruption_error:
        rows += [
            '',
            '## Corruptions',
            '',
            'Top-1 error (%) by severity and over all; CE and relative CE in percent of those of '
            f'{baseline.name}.',
            '',
            *table_head(['corruption', *map(str, SEVERITIES), 'mean', 'CE', 'Rel. CE']),
        ]
    for name, error in network.corruption_error.items():
        label = f'{name} (not in mCE)' if name in EXTRA_CORRUPTIONS else name
        shown = [100 * e for e in (*error, mean_error(name, error))]
        ratios = [ratio['CE'].get(name, nan), ratio['Rel. CE'].get(name, nan)]
        rows.append(row(label, [number(x) for x in shown + ratios]))
    if network.flip_probability:
        rows += [
            '',
            '## Perturbations',
            '',
            'Flip probability (%) and mean top-5 distance (0 to 18); FR and T5D in percent of '
            f'those of {baseline.name}.',
            '',
            *table_head(['perturbation', 'FP', 'uT5D', 'FR', 'T5D']),
        ]
    for name, flips in network.flip_probability.items():
        label = name if name in PERTURBATIONS else f'{name} (not in mFR, mT5D)'
        raw = [number(100 * flips), number(network.top5_distance[name], 3)]
        ratios = [number(ratio[key].get(name, nan)) for key in ('FR', 'T5D')]
        rows.append(row(label, raw + ratios))
    skipped = [f'- {item["reason"]}' for part in parts.values() for item in part['skipped']]
    if skipped:
        rows += ['', f'## {len(skipped)} files left out', '', *skipped]
    return '\n'.join(rows) + '\n'


def compare(groups: Mapping[str, Sequence[Robustness]], baseline: Robustness) -> list[str]:
    """Lines of Markdown: normalised and raw columns of several networks.

    Args:
        groups: by label, a network or several runs of it, of which the mean and the sample standard
            deviation are given.
        baseline: raw numbers that normalise.
    """
    normalised = table_head(['network', *NORMALISED])
    raw = table_head(['network', *RAW])
    notes = {}  # text: the labels it is about
    for label, networks in groups.items():
        summaries = []
        for network in networks:
            summary, missing = summarise(network, baseline)
            summaries.append(summary)
            if made := network.provenance.get('regenerated'):
                missing.append(
                    f'{" and ".join(made)} regenerated, not official: comparable with results on '
                    'the same files alone'
                )
            for note in missing:
                notes.setdefault(note, {})[label] = None
        for lines, columns in ((normalised, NORMALISED), (raw, RAW)):
            cells = []
            for column in columns:
                digits = 3 if column == 'top-5 distance' else 1 if columns is NORMALISED else 2
                cells.append(spread([summary[column] for summary in summaries], digits))
            lines.append(row(label, cells))
    runs = {len(networks) for networks in groups.values()}
    several = f' Mean ± standard deviation of {max(runs)} runs.' if max(runs) > 1 else ''
    return [
        f'In percent of {baseline.name}; lower is better.{several}',
        '',
        *normalised,
        '',
        'Raw: top-1 error and flip probability in percent, top-5 distance from 0 to 18; means over '
        f'the {len(CORRUPTIONS)} corruptions and {len(PERTURBATIONS)} perturbations of the '
        'benchmarks.',
        '',
        *raw,
        *([''] if notes else []),
        *(f'- {", ".join(labels)}: {note}' for note, labels in notes.items()),
    ]


def table_head(cells):
    return [row(cells[0], cells[1:]), '|---|' + '---:|' * (len(cells) - 1)]


def row(label, cells):
    return f'| {label} | ' + ' | '.join(cells) + ' |'


def number(value, digits=2):
    return f'{value:.{digits}f}' if isfinite(value) else '-'


def spread(values, digits):
    """Mean, and standard deviation if there are several, of what may hold NaN."""
    if len(values) == 1 or not all(map(isfinite, values)):
        return number(fmean(values), digits)
    return f'{fmean(values):.{digits}f} ± {stdev(values):.{digits}f}'


def plot(
    groups: Mapping[str, Sequence[Robustness]], baseline: Robustness, path: str | Path
) -> None:
    """Draw CE, FR and T5D of several networks as bars, one panel each.

    Args:
        groups: by label, a network or several runs of it: a bar is their mean, a whisker from the
            least to the greatest.
        baseline: raw numbers that normalise; the line at 100.
        path: of the PNG.

    Raises:
        ValueError: if there is nothing to draw.
    """
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    values = {
        label: [
            (details(network, baseline), summarise(network, baseline)[0]) for network in networks
        ]
        for label, networks in groups.items()
    }
    panels = []
    for key, mean, order in (
        ('CE', 'mCE', CORRUPTIONS + EXTRA_CORRUPTIONS),
        ('FR', 'mFR', PERTURBATIONS),
        ('T5D', 'mT5D', PERTURBATIONS),
    ):
        names = [n for n in order if any(n in d[key] for runs in values.values() for d, _ in runs)]
        if names:
            panels.append((key, mean, names))
    if not panels:
        raise ValueError('nothing to draw: no network has numbers that the baseline has too')

    figure, axes = plt.subplots(
        len(panels), figsize=(13, 3.2 * len(panels)), layout='constrained', squeeze=False
    )
    width = 0.8 / len(groups)
    for axis, (key, mean, names) in zip(axes[:, 0], panels, strict=True):
        # The mean on the left, what it is not of on the right, apart from what it is of.
        places = [0, *(i + (2 if n in EXTRA_CORRUPTIONS else 1.5) for i, n in enumerate(names))]
        for i, (label, runs) in enumerate(values.items()):
            columns = [[s[mean] for _, s in runs]]
            columns += [[d[key].get(name, nan) for d, _ in runs] for name in names]
            heights = [fmean(column) for column in columns]
            whiskers = None
            if len(runs) > 1:
                # The mean of equal numbers may be off by a rounding error.
                whiskers = [
                    [max(h - min(c), 0) for h, c in zip(heights, columns, strict=True)],
                    [max(max(c) - h, 0) for h, c in zip(heights, columns, strict=True)],
                ]
            axis.bar(
                [x + (i - (len(groups) - 1) / 2) * width for x in places],
                *(heights, width),
                yerr=whiskers,
                label=label,
                error_kw=dict(lw=1),
            )
        axis.axhline(100, color='grey', ls='--', lw=1, label=baseline.name)
        axis.axvline(0.75, color='black', lw=0.8)
        axis.set_xticks(places, [mean, *(n.replace('_', '\n') for n in names)], fontsize='small')
        axis.set(ylabel=f'{key}, % of {baseline.name}', xlim=(-0.6, places[-1] + 0.6))
        axis.grid(axis='y', alpha=0.3)
        axis.set_axisbelow(True)
    axes[0, 0].legend(
        ncols=len(groups) + 1, loc='lower right', bbox_to_anchor=(1, 1), frameon=False
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)
