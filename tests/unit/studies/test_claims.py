"""Claims: intervals against SciPy's paired test, verdicts by rule, and the page of the docs."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmpretrain.structures import DataSample
from scipy.stats import ttest_rel

from gcp_mm.hub import resolve_config
from gcp_mm.studies.claims import page, paired_interval, verdict
from tests.helpers.configs import build_model
from tests.helpers.runs import ROOT

TABLE = yaml.safe_load((ROOT / 'tools/claims.yml').read_text())
Run = runpy.run_path(str(ROOT / 'tools/reproduce.py'))['Run']
CLAIMS = json.loads((ROOT / 'docs/claims.json').read_text())


@pytest.mark.parametrize('count', [2, 5, 9])
def test_interval(count):
    a, b = np.random.default_rng(count).normal(80, 3, (2, count))
    expected = ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose(paired_interval(a, b), expected)
    low, high = paired_interval(b, a)
    np.testing.assert_allclose((-high, -low), expected)


def test_interval_of_equal_differences():
    assert paired_interval([3.0, 4.0], [1.0, 2.0]) == [2.0, 2.0]


@pytest.mark.parametrize(
    ('interval', 'expected'),
    [
        ((0.1, 2), 'supported'),
        ((-2, -0.1), 'not supported'),
        ((-1, 1), 'undecided'),
        ((0, 1), 'undecided'),
        ((0, 0), 'undecided'),
    ],
)
def test_verdict(interval, expected):
    assert verdict(*interval) == expected


@pytest.mark.parametrize(
    ('a', 'b', 'words'),
    [
        ([1.0], [2.0], 'at least 2 pairs, got 1 and 1'),
        ([1.0, 2.0], [2.0], 'got 2 and 1'),
        ([1.0, float('nan')], [2.0, 2.0], 'expected numbers.*nan'),
    ],
)
def test_wrong_runs(a, b, words):
    with pytest.raises(ValueError, match=words):
        paired_interval(a, b)


def test_the_page_is_what_the_file_says():
    assert (ROOT / 'docs/claims.md').read_text() == page(CLAIMS, TABLE['parts'])


@pytest.mark.parametrize('claim', CLAIMS, ids=lambda claim: f'{claim["claim"]}, {claim["set"]}')
def test_verdicts_follow_from_the_runs_by_the_rule(claim):
    of_part = TABLE['parts'][claim['part']]['claims']
    (declared,) = [each for each in of_part if each['claim'] == claim['claim']]
    assert list(claim['runs']) == [declared['above'], declared['below']]
    assert all(len(values) == len(TABLE['seeds']) for values in claim['runs'].values())
    interval = paired_interval(*claim['runs'].values())
    assert claim['difference'] == [round(end, 2) for end in interval]
    assert claim['verdict'] == verdict(*interval)


def test_the_file_has_every_claim_of_the_parts_it_has():
    parts = list(dict.fromkeys(claim['part'] for claim in CLAIMS))
    declared = [
        (name, place, claim['claim'])
        for name in parts
        for place in TABLE['parts'][name]['sets']
        for claim in TABLE['parts'][name]['claims']
    ]
    assert [(c['part'], c['set'], c['claim']) for c in CLAIMS] == declared


@pytest.mark.parametrize('name', TABLE['networks'])
def test_declared_networks_train_and_are_compared(name):
    parts = TABLE['parts'].values()
    assert any(name in (c['above'], c['below']) for part in parts for c in part['claims'])
    run = Run(TABLE, Path(), 'digits', name, 0.1, 0)
    cfg = resolve_config(run.config)
    cfg.merge_from_dict(run.options)
    loss = build_model(cfg)(
        torch.randn(2, 3, 64, 64), [DataSample().set_gt_label(k) for k in (3, 7)], mode='loss'
    )
    loss['loss'].backward()
