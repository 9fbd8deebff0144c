"""Raw robustness of a network, and ratios to that of a baseline.

The benchmarks' authors divide by AlexNet (Hendrycks and Dietterich, Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations, ICLR 2019). alexnet.json holds its numbers and
their sources.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from pathlib import Path
from statistics import fmean

import numpy as np

from .._io import read_json

ALEXNET = Path(__file__).with_name('alexnet.json')


@dataclass(frozen=True)
class Robustness:
    """Unnormalized results of a network; errors and probabilities are fractions in [0, 1].

    Args:
        name: name of the network.
        clean_error: top-1 error on the clean images; None if it was not measured.
        corruption_error: by corruption, the mean top-1 error or the errors at severity 1 to 5.
        flip_probability: by perturbation.
        top5_distance: by perturbation, 0 to 18.
        regenerated: benchmarks whose files are not the official ones.
    """

    name: str
    clean_error: float | None = None
    corruption_error: Mapping[str, float | Sequence[float]] = field(default_factory=dict)
    flip_probability: Mapping[str, float] = field(default_factory=dict)
    top5_distance: Mapping[str, float] = field(default_factory=dict)
    regenerated: Sequence[str] = ()


def load_baseline() -> Robustness:
    """AlexNet's numbers."""
    numbers = read_json(ALEXNET)
    del numbers['provenance']
    return Robustness(**numbers)


def mean_of(name: str, networks: Sequence[Robustness]) -> Robustness:
    """Mean of the numbers of several networks, such as runs with different seeds.

    Args:
        name: name of the result.
        networks: at least one.

    Raises:
        ValueError: if they were not measured on the same corruptions and perturbations.
    """

    def mean(field):
        values = [getattr(network, field) for network in networks]
        if any(value.keys() != values[0].keys() for value in values):
            raise ValueError(f'{name}: not all networks have the same entries in {field}')
        return {
            key: np.mean([value[key] for value in values], axis=0).tolist() for key in values[0]
        }

    clean = [network.clean_error for network in networks]
    return Robustness(
        name,
        clean_error=None if None in clean else fmean(clean),
        corruption_error=mean('corruption_error'),
        flip_probability=mean('flip_probability'),
        top5_distance=mean('top5_distance'),
    )


def percent_of(values: Mapping[str, float], reference: Mapping[str, float]) -> dict[str, float]:
    """Each value in percent of the reference's; NaN where that is absent or not above 0.

    Args:
        values: numbers of a network by corruption or perturbation.
        reference: the baseline's.
    """
    return {
        name: 100 * (value / reference[name]) if reference.get(name, 0) > 0 else nan
        for name, value in values.items()
    }


def mean_percent(percentages: Mapping[str, float], names: Sequence[str], what: str) -> float:
    """Mean of what :func:`percent_of` gives over a benchmark.

    Args:
        percentages: by corruption or perturbation; those not in `names` are left out.
        names: the benchmark's.
        what: the quantity, for messages.

    Raises:
        ValueError: if some of `names` are missing or NaN; the message lists them.
    """
    missing = [name for name in names if name not in percentages]
    if missing:
        raise ValueError(f'{what}: {", ".join(missing)} missing')
    undefined = [name for name in names if isnan(percentages[name])]
    if undefined:
        raise ValueError(f'{what}: the baseline has none above 0 for {", ".join(undefined)}')
    return fmean(percentages[name] for name in names)
