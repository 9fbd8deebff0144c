"""Raw robustness of a network, and the one that the metrics are normalised by.

The benchmarks' authors divide by AlexNet (Hendrycks and Dietterich, Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations, ICLR 2019). Its numbers are in alexnet.json,
with where they come from; a file of the same form takes their place.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import nan
from numbers import Real
from os import PathLike
from pathlib import Path
from statistics import fmean

ALEXNET = Path(__file__).with_name('alexnet.json')


@dataclass(frozen=True)
class Robustness:
    """Raw, unnormalised numbers of a network; errors and probabilities are fractions in [0, 1].

    Args:
        name: of the network.
        provenance: where the other fields come from.
        clean_error: top-1 error on the clean images; None where it was not measured.
        corruption_error: by corruption, the mean top-1 error or those of severity 1 to 5.
        flip_probability: by perturbation.
        top5_distance: by perturbation, 0 to 18.
    """

    name: str
    provenance: Mapping[str, object]
    clean_error: float | None = None
    corruption_error: Mapping[str, float | Sequence[float]] = field(default_factory=dict)
    flip_probability: Mapping[str, float] = field(default_factory=dict)
    top5_distance: Mapping[str, float] = field(default_factory=dict)

    def save(self, path: str | PathLike) -> None:
        """Write a file that :func:`load_baseline` reads."""
        Path(path).write_text(json.dumps(asdict(self), indent=2) + '\n')


def load_baseline(path: str | PathLike = ALEXNET) -> Robustness:
    """Read the numbers of a reference network.

    Args:
        path: JSON file with the fields of :class:`Robustness`; by default AlexNet's.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not such a file.
    """
    try:
        content = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f'baseline {str(path)!r} is no JSON file: {error}') from error
    known = {f.name for f in fields(Robustness)}
    if not isinstance(content, dict) or not {'name', 'provenance'} <= content.keys() <= known:
        raise ValueError(
            f'baseline {str(path)!r}: expected the fields {", ".join(sorted(known))}, of which '
            'name and provenance are required; tools/measure_baseline.py writes such a '
            'file'
        )
    return Robustness(**content)


def mean_of(name: str, networks: Sequence[Robustness]) -> Robustness:
    """Mean of the numbers of several networks, such as runs with other seeds.

    Args:
        name: of the result.
        networks: at least one.

    Raises:
        ValueError: if they were not all measured on the same.
    """

    def mean(values):
        if isinstance(values[0], Mapping):
            names = values[0].keys()
            if any(value.keys() != names for value in values):
                raise ValueError(f'{name}: not all were measured on the same: {list(names)}, ...')
            return {key: mean([value[key] for value in values]) for key in names}
        if isinstance(values[0], Sequence):
            return [fmean(severity) for severity in zip(*values, strict=True)]
        if None in values:
            return None
        return fmean(values)

    numbers = [f.name for f in fields(Robustness) if f.name not in ('name', 'provenance')]
    return Robustness(
        name,
        provenance=dict(mean_of=[dict(network.provenance) for network in networks]),
        **{field: mean([getattr(network, field) for network in networks]) for field in numbers},
    )


def mean_error(name: str, error: float | Sequence[float]) -> float:
    """Mean top-1 error of a corruption.

    Args:
        name: of the corruption, for the message.
        error: the mean, or the errors at severity 1 to 5, fractions.

    Raises:
        ValueError: for another number of severities, or an error outside [0, 1].
    """
    values = [error] if isinstance(error, Real) else list(error)
    if len(values) not in (1, 5):
        raise ValueError(
            f'errors[{name!r}]: expected the mean error or those of severity 1 to 5, '
            f'got {len(values)} values'
        )
    if not all(0 <= value <= 1 for value in values):
        raise ValueError(f'errors[{name!r}]: expected fractions in [0, 1], got {error}')
    return fmean(map(float, values))


def percent_of(
    values: Mapping[str, float], reference: Mapping[str, float], names: Iterable[str], what: str
) -> dict[str, float]:
    """Each value in percent of the reference's of the same name; NaN where that is not above 0.

    Args:
        values: by corruption or perturbation.
        reference: the baseline's, by the same names.
        names: those wanted.
        what: the quantity, for messages.

    Raises:
        ValueError: if either lacks some of `names`; the message lists them all.
    """
    names = list(names)
    for owner, numbers in ((what, values), (f"the baseline's {what}", reference)):
        missing = [name for name in names if name not in numbers]
        if missing:
            raise ValueError(f'{owner}: {", ".join(missing)} missing')
    return {
        name: 100 * (values[name] / reference[name]) if reference[name] > 0 else nan
        for name in names
    }


def mean_percent(percentages: Mapping[str, float], what: str) -> float:
    """Mean of what :func:`percent_of` gives.

    Raises:
        ValueError: if one of them is NaN; the message lists them all.
    """
    undefined = [name for name, value in percentages.items() if value != value]
    if undefined:
        raise ValueError(
            f"the baseline's {what} is not above 0 for {', '.join(undefined)}: no ratio to it, "
            'and so no mean, exists'
        )
    return fmean(percentages.values())
