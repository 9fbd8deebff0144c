"""Robustness of a detector to corruptions (COCO-C): mPC and rPC, and a page about them.

Michaelis et al., Benchmarking Robustness in Object Detection: Autonomous Driving when Winter is
Coming, 2019, https://arxiv.org/abs/1907.07484. Of a metric, such as AP, that is P on clean images
and P[c, s] under corruption c at severity s::

    mPC = mean over the 15 corruptions and 5 severities of P[c, s]
    rPC = mPC / P
"""

from collections.abc import Mapping
from math import nan
from statistics import fmean

from .._io import markdown_table, number
from .errors import CORRUPTIONS, SEVERITIES

ALL = [f'{name}/{severity}' for name in CORRUPTIONS for severity in SEVERITIES]


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
        corrupted = [parts[key][metric] if key in parts else nan for key in ALL]
        mean = fmean(corrupted) if clean >= 0 else nan
        rate = mean / clean if clean > 0 else nan
        summary[metric] = dict(P=clean, mPC=mean, rPC=rate)
    return summary


def main_metrics(summary: Mapping[str, object]) -> list[str]:
    """The metrics of a summary that are means over thresholds, such as 'coco/bbox_mAP', or all."""
    return [metric for metric in summary if metric.endswith('mAP')] or list(summary)


def report_detector(results: Mapping) -> str:
    """A page in Markdown about the results of one detector."""
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
        *missing(results),
    ]
    for metric in main_metrics(summary):
        rows = []
        for name in CORRUPTIONS:
            keys = [f'{name}/{severity}' for severity in SEVERITIES]
            values = [parts[key][metric] if key in parts else nan for key in keys]
            if any(key in parts for key in keys):
                rows.append([name, *(number(value, 3) for value in (*values, fmean(values)))])
        if rows:
            page += [f'## {metric}', markdown_table(['corruption', *SEVERITIES, 'mean'], rows)]
    if skipped := [f'- {item["reason"]}' for item in results['skipped']]:
        page += [f'## {len(skipped)} images left out', '\n'.join(skipped)]
    return '\n\n'.join(page) + '\n'


def missing(results: Mapping) -> list[str]:
    """A line that says why there is no mPC, in a list that is empty if there is one."""
    absent = [key for key in ALL if key not in results['parts']]
    if not absent:
        return []
    first = ', '.join(absent[:5]) + (', ...' if len(absent) > 5 else '')
    return [f'- {results["name"]}: no mPC: {len(absent)} of {len(ALL)} parts missing: {first}']
