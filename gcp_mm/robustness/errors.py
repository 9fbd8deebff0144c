"""Corruption errors of classifiers, mCE and Relative mCE, and mPC and rPC of detectors.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, ICLR 2019, section 4. E[s, c] is the error under corruption c at severity s::

    CE_c     = sum_s E[s, c] / sum_s E_ref[s, c]
    RelCE_c  = (mean_s E[s, c] - E_clean) / (mean_s E_ref[s, c] - E_ref,clean)

mCE and Relative mCE are the means of these ratios over the 15 benchmark corruptions, not ratios of
means. The reference is AlexNet unless you give another baseline.

Michaelis et al., Benchmarking Robustness in Object Detection: Autonomous Driving when Winter is
Coming, 2019, https://arxiv.org/abs/1907.07484. Of a metric, such as AP, that is P on clean images
and P[c, s] under corruption c at severity s::

    mPC = mean over the 15 corruptions and 5 severities of P[c, s]
    rPC = mPC / P
"""

from collections.abc import Mapping, Sequence
from math import nan
from numbers import Real
from statistics import fmean

from .baseline import Robustness, load_baseline, mean_percent, percent_of

CORRUPTIONS = (
    *('gaussian_noise', 'shot_noise', 'impulse_noise'),
    *('defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur'),
    *('snow', 'frost', 'fog', 'brightness'),
    *('contrast', 'elastic_transform', 'pixelate', 'jpeg_compression'),
)
EXTRA_CORRUPTIONS = ('speckle_noise', 'gaussian_blur', 'spatter', 'saturate')  # never in mCE
SEVERITIES = (1, 2, 3, 4, 5)
# Of COCO-C
SCENE_PARTS = [f'{name}/{severity}' for name in CORRUPTIONS for severity in SEVERITIES]

Errors = Mapping[str, float | Sequence[float]]


def mean_corruption_error(errors: Errors, baseline: Robustness | None = None) -> float:
    """mCE over the 15 benchmark corruptions, in percent; others in `errors` are ignored.

    Args:
        errors: by corruption, the mean top-1 error or the errors at severity 1 to 5, in [0, 1].
        baseline: reference network; by default AlexNet.

    Raises:
        ValueError: if one of the 15 is missing, or the baseline makes no error on it; for an error
            outside [0, 1].
    """
    return mean_percent(corruption_errors(errors, baseline), CORRUPTIONS, 'corruption error')


def relative_mean_corruption_error(
    errors: Errors, clean_error: float, baseline: Robustness | None = None
) -> float:
    """Relative mCE over the 15 benchmark corruptions, in percent.

    Args:
        errors, baseline: as in :func:`mean_corruption_error`.
        clean_error: top-1 error on the clean images, in [0, 1].

    Raises:
        ValueError: as :func:`mean_corruption_error`; if the baseline has no clean error, or its
            error under a corruption is not above it.
    """
    baseline = baseline or load_baseline()
    if baseline.clean_error is None:
        raise ValueError(f'the baseline {baseline.name} has no clean error')
    relative = corruption_errors(errors, baseline, clean_error, baseline.clean_error)
    return mean_percent(relative, CORRUPTIONS, 'error above the clean one')


def corruption_errors(
    errors: Errors,
    baseline: Robustness | None = None,
    clean_error: float = 0.0,
    reference: float = 0.0,
) -> dict[str, float]:
    """CE or relative CE of each corruption in `errors`, in percent.

    Args:
        errors, baseline: as in :func:`mean_corruption_error`.
        clean_error: top-1 error on the clean images, for relative CE; 0 for CE.
        reference: the baseline's, for relative CE; 0 for CE.

    Returns:
        The values by corruption; NaN if the baseline has no error above its `reference`.

    Raises:
        ValueError: for an error outside [0, 1].
    """
    if clean_error is None or not 0 <= clean_error <= 1:
        raise ValueError(
            'clean_error: expected the top-1 error on the clean images, a fraction in [0, 1], got '
            f'{clean_error}'
        )
    baseline = baseline or load_baseline()
    return percent_of(
        {name: mean - clean_error for name, mean in mean_errors(errors).items()},
        {name: mean - reference for name, mean in mean_errors(baseline.corruption_error).items()},
    )


def mean_errors(errors: Errors) -> dict[str, float]:
    """Mean over the severities of each corruption's top-1 error.

    Args:
        errors: as of :func:`mean_corruption_error`.

    Raises:
        ValueError: for another number of severities than 1 or 5, or an error outside [0, 1].
    """
    means = {}
    for name, error in errors.items():
        values = [error] if isinstance(error, Real) else list(error)
        if len(values) not in (1, 5) or not all(0 <= value <= 1 for value in values):
            raise ValueError(
                f'errors[{name!r}]: expected the mean error or those of severity 1 to 5, fractions '
                f'in [0, 1], got {error}'
            )
        means[name] = fmean(map(float, values))
    return means


def performance(parts: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """P, mPC and rPC by metric.

    Args:
        parts: values by metric, of 'clean' and of parts such as 'fog/1'.

    Returns:
        ``{metric: {'P': ..., 'mPC': ..., 'rPC': ...}}``. rPC is a fraction. mPC is NaN unless all
        75 corruptions and severities are among the parts; rPC is NaN then, and if P is not
        positive: MMDetection's AP of objects of a size that the data lack is -1.
    """
    summary = {}
    for metric, clean in parts['clean'].items():
        corrupted = [parts[key][metric] if key in parts else nan for key in SCENE_PARTS]
        mean = fmean(corrupted) if clean >= 0 else nan
        rate = mean / clean if clean > 0 else nan
        summary[metric] = dict(P=clean, mPC=mean, rPC=rate)
    return summary
