"""Corruption errors: how a classifier's top-1 error grows on corrupted images.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, ICLR 2019, section 4. E[s, c] is the error under corruption c at severity s::

    CE_c     = sum_s E[s, c] / sum_s E_ref[s, c]
    RelCE_c  = (mean_s E[s, c] - E_clean) / (mean_s E_ref[s, c] - E_ref,clean)

mCE and Relative mCE are means of these ratios over the 15 benchmark corruptions, not ratios of
means. The reference is AlexNet unless another is given.
"""

from collections.abc import Iterable, Mapping, Sequence

from .baseline import Robustness, load_baseline, mean_error, mean_percent, percent_of

CORRUPTIONS = (
    *('gaussian_noise', 'shot_noise', 'impulse_noise'),
    *('defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur'),
    *('snow', 'frost', 'fog', 'brightness'),
    *('contrast', 'elastic_transform', 'pixelate', 'jpeg_compression'),
)
EXTRA_CORRUPTIONS = ('speckle_noise', 'gaussian_blur', 'spatter', 'saturate')  # never in mCE
SEVERITIES = (1, 2, 3, 4, 5)

Errors = Mapping[str, float | Sequence[float]]
ERROR, INCREASE = 'corruption error', 'error above the clean one'


def corruption_errors(
    errors: Errors, baseline: Robustness | None = None, names: Iterable[str] = CORRUPTIONS
) -> dict[str, float]:
    """CE of each corruption, in percent; NaN where the baseline makes no error.

    Args:
        errors: by corruption, the mean top-1 error or those of severity 1 to 5, in [0, 1].
        baseline: reference network; by default AlexNet.
        names: of the corruptions wanted.

    Raises:
        ValueError: if a wanted one is missing, the message lists them; for an error outside
            [0, 1].
    """
    baseline = baseline or load_baseline()
    return percent_of(_means(errors), _means(baseline.corruption_error), names, ERROR)


def mean_corruption_error(errors: Errors, baseline: Robustness | None = None) -> float:
    """mCE, over the 15 benchmark corruptions, in percent; others in `errors` are left out.

    Args:
        errors: by corruption, the mean top-1 error or those of severity 1 to 5, in [0, 1].
        baseline: reference network; by default AlexNet.

    Raises:
        ValueError: as :func:`corruption_errors`; if the baseline makes no error on one.
    """
    return mean_percent(corruption_errors(errors, baseline), ERROR)


def relative_corruption_errors(
    errors: Errors,
    clean_error: float,
    baseline: Robustness | None = None,
    names: Iterable[str] = CORRUPTIONS,
) -> dict[str, float]:
    """Relative CE of each corruption, in percent: CE of what the error is above the clean one.

    Args:
        errors: by corruption, the mean top-1 error or those of severity 1 to 5, in [0, 1].
        clean_error: top-1 error on the clean images, in [0, 1].
        baseline: reference network; by default AlexNet.
        names: of the corruptions wanted.

    Returns:
        By corruption; NaN where the baseline's error is not above its clean one.

    Raises:
        ValueError: as :func:`corruption_errors`; for a `clean_error` outside [0, 1]; if the
            baseline has none.
    """
    baseline = baseline or load_baseline()
    if not 0 <= clean_error <= 1:
        raise ValueError(f'clean_error: expected a fraction in [0, 1], got {clean_error}')
    if baseline.clean_error is None:
        raise ValueError(f'the baseline {baseline.name} has no clean error')
    increase = {name: mean - clean_error for name, mean in _means(errors).items()}
    reference = {
        name: mean - baseline.clean_error
        for name, mean in _means(baseline.corruption_error).items()
    }
    return percent_of(increase, reference, names, INCREASE)


def relative_mean_corruption_error(
    errors: Errors, clean_error: float, baseline: Robustness | None = None
) -> float:
    """Relative mCE, over the 15 benchmark corruptions, in percent.

    Args:
        errors: by corruption, the mean top-1 error or those of severity 1 to 5, in [0, 1].
        clean_error: top-1 error on the clean images, in [0, 1].
        baseline: reference network; by default AlexNet.

    Raises:
        ValueError: as :func:`relative_corruption_errors`; if the baseline's error is not above its
            clean one on a corruption.
    """
    return mean_percent(relative_corruption_errors(errors, clean_error, baseline), INCREASE)


def _means(errors):
    return {name: mean_error(name, error) for name, error in errors.items()}
