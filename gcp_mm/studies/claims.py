"""Claims about networks, each with its runs, its interval and the verdict that follows from it.

A claim says that one network is better than another by a metric. Both are trained from the
same seeds; the interval is that of the mean paired difference, by Student's t-distribution.
"""

import statistics
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from scipy.stats import ttest_1samp

from .._io import markdown_table, mean_and_deviation, write_figure
from .curves import panels

HEAD = """# Claims and their spread

`tools/reproduce.py` trains networks from several seeds and compares them seed by seed. It writes
this page and `claims.json` beside it. `tools/claims.yml` lists the networks, datasets and claims.

The learning rate of each network is the best of a grid, by the accuracy on a held-out fifth of the
training images, unless the part says otherwise. Then the network is trained on all training images
from each seed, and validated.

For each seed, the result of the second network is subtracted from that of the first. The sign is
chosen so that a positive difference means that the first network is better. The interval is the
95 % confidence interval of the mean difference (Student's t). A claim is supported if the whole
interval is positive, not supported if the whole interval is negative, and undecided at this size if
it contains 0. About one in 20 such intervals misses the true value. The intervals cover the
variation between seeds, not the choice of the learning rate."""
PLOTS = {
    'curves': 'Median and range by epoch',
    'densities': "Density of the Hessian's eigenvalues at the end of each run",
}


class Claim(TypedDict):
    """An element of `docs/claims.json`; `difference` has the ends of the interval.

    `runs` and `rates` are those of the better network first, then those of the other.
    """

    part: str
    claim: str
    metric: str
    set: str
    rates: dict[str, float]
    runs: dict[str, list[float]]
    difference: list[float]
    verdict: str


def paired_interval(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Interval of 95 % of the mean of ``a - b``.

    Args:
        a: values of one network, one for each seed, at least 2.
        b: values of the other, of the same seeds in the same order.

    Returns:
        Its lower and its upper end.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Precision loss')  # where all are equal
        return [*map(float, ttest_1samp(differences, 0).confidence_interval(0.95))]


def verdict(low: float, high: float) -> str:
    """What follows from the interval of the difference that a claim says to be positive.

    Returns:
        'supported' if the interval is positive, 'not supported' if it is negative, 'undecided' if
        it contains 0.
    """
    return 'supported' if low > 0 else 'not supported' if high < 0 else 'undecided'


def networks_table(claims: Sequence[Claim], ranges: bool = False) -> str:
    """Markdown table of each network's metric on each set, with the learning rate.

    Args:
        claims: of one metric.
        ranges: give median and range of the runs, not mean ± deviation.
    """
    runs = _runs(claims)
    rates = {(c['set'], name): rate for c in claims for name, rate in c['rates'].items()}
    sets = list(dict.fromkeys(place for place, _ in runs))
    shown = _median_and_range if ranges else mean_and_deviation
    rows = [
        [
            name,
            *(f'{shown(runs[place, name])} at {rates[place, name]}' for place in sets),
        ]
        for name in dict.fromkeys(name for _, name in runs)
    ]
    return markdown_table(['network', *sets], rows)


def claims_table(claims: Sequence[Claim]) -> str:
    """Markdown table of claims with their intervals and verdicts."""
    rows = [
        [
            claim['claim'],
            claim['metric'],
            claim['set'],
            '{:+.3g} to {:+.3g}'.format(*claim['difference']),
            claim['verdict'],
        ]
        for claim in claims
    ]
    return markdown_table(['claim', 'metric', 'set', 'better by', 'verdict'], rows)


def verdicts_table(claims: Sequence[Claim], titles: Mapping[str, str]) -> str:
    """Markdown table of how many claims of each part have each verdict.

    Args:
        claims: of all parts.
        titles: by part, a title.
    """
    verdicts = ('supported', 'not supported', 'undecided')
    found = Counter((claim['part'], claim['verdict']) for claim in claims)
    rows = [
        [titles[part], *(found[part, each] for each in verdicts)]
        for part in dict.fromkeys(claim['part'] for claim in claims)
    ]
    return markdown_table(['part', *verdicts], rows)


def page(claims: Sequence[Claim], table: Mapping[str, dict]) -> str:
    """The page of all claims, Markdown.

    Args:
        claims: of `claims.json`.
        table: of `claims.yml`, a `text` and `parts`, with a `title` and a `text` each.
    """
    measured, parts = dict.fromkeys(claim['part'] for claim in claims), table['parts']
    titles = {name: part['title'] for name, part in parts.items()}
    sections = [HEAD, table['text'].strip()]
    sections += ['Number of verdicts. Each claim counts once for each metric and dataset.']
    sections += [verdicts_table(claims, titles)]
    if missing := [titles[name] for name in parts if name not in measured]:
        sections.append(
            '\n'.join(['Declared, not measured yet:', '', *(f'- {m}' for m in missing)])
        )
    for name in measured:
        of_part = [claim for claim in claims if claim['part'] == name]
        count = len(next(iter(of_part[0]['runs'].values())))
        sections += [
            f'## {titles[name]}',
            parts[name]['text'].strip(),
            f'{count} seeds. The number after "at" is the learning rate.',
            f'<!-- {name} -->',
        ]
        for metric, of_metric in _by_metric(of_part).items():
            declared = parts[name]['metrics'][metric]
            ranges = 'target' in declared
            shown = f'{metric}, {"median (range)" if ranges else "mean ± deviation"}'
            sections += [f'{shown}{", lower is better" if declared.get("lower") else ""}:']
            sections += [networks_table(of_metric, ranges)]
        sections += [f'<!-- end of {name} -->', f'![Every run of {name}](images/claims_{name}.png)']
        sections += [
            f'![{title}](images/claims_{name}_{kind}.png)\n\n*{title}*'
            for kind, title in PLOTS.items()
            if kind in parts[name]
        ]
        sections += [claims_table(of_part)]
    return '\n\n'.join(sections) + '\n'


def draw_runs(path: Path, claims: Sequence[Claim]) -> None:
    """Draw every run as a point, and the means: a row for each metric, a panel for each set."""
    metrics = _by_metric(claims)
    sets = list(dict.fromkeys(claim['set'] for claim in claims))
    names = list(dict.fromkeys(name for _, name in _runs(claims)))
    figure, rows = panels(len(sets), len(metrics), height=1 + 0.3 * len(names))
    for row, (metric, of_metric) in zip(rows, metrics.items(), strict=True):
        runs = _runs(of_metric)
        for axes, here in zip(row, sets, strict=True):
            for place, name in enumerate(names):
                values = runs[here, name]
                axes.plot(values, [place] * len(values), 'o', alpha=0.6)
                axes.plot([statistics.fmean(values)] * 2, [place - 0.3, place + 0.3], 'k-')
            axes.set(title=here, xlabel=metric)
            axes.set_yticks(range(len(names)), names if here == sets[0] else [''] * len(names))
            axes.invert_yaxis()
    write_figure(path, figure, dpi=120)


def draw_densities(path: Path, densities: Mapping[str, Mapping[str, Sequence[dict]]]) -> None:
    """Draw spectral densities of :func:`.curvature.spectrum_of`, {set: {network: [one a run]}}."""
    figure, (row,) = panels(len(densities), width=6)
    for axes, (place, networks) in zip(row, densities.items(), strict=True):
        for color, (name, runs) in enumerate(networks.items()):
            for k, density in enumerate(runs):
                label = None if k else name
                axes.plot(*density.values(), color=f'C{color}', alpha=0.6, lw=1, label=label)
        axes.set(title=place, xlabel='eigenvalue of the Hessian', ylabel='density', yscale='log')
        axes.set_ylim(bottom=1e-9)  # between the Gaussians of the quadrature there is nothing
        axes.legend()
    write_figure(path, figure, dpi=120)


def _median_and_range(values):
    return f'{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})'


def _by_metric(claims):
    """{metric: claims}."""
    return {
        metric: [claim for claim in claims if claim['metric'] == metric]
        for metric in dict.fromkeys(claim['metric'] for claim in claims)
    }


def _runs(claims):
    """{(set, network): values} of claims of a metric, the worse first: one compares with it."""
    return {
        (claim['set'], name): values
        for claim in claims
        for name, values in reversed(claim['runs'].items())
    }
