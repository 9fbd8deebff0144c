"""Claims: intervals by hand, verdicts by rule, and the page of the docs."""

import copy
import functools
import json
import runpy
from pathlib import Path

import pytest
import torch
import yaml
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmpretrain.structures import DataSample

from gcp_mm.hub import resolve_config
from gcp_mm.studies.claims import page, paired_interval, verdict
from tests.helpers.configs import build_model, network_of
from tests.helpers.runs import ROOT

TABLE = yaml.safe_load((ROOT / 'tools/claims.yml').read_text())
reproduce = runpy.run_path(str(ROOT / 'tools/reproduce.py'))
CLAIMS = json.loads((ROOT / 'docs/claims.json').read_text())


@pytest.mark.parametrize(
    ('differences', 'mean', 'half'),  # quantile of Student's t times deviation / sqrt(count)
    [
        ((0, 2), 1, 12.706205),
        ((1, 2, 3), 2, 4.302653 / 3**0.5),
        ((-4, 1, 0, 1, 2), 0, 2.776445 * 5.5**0.5 / 5**0.5),
    ],
)
def test_interval(differences, mean, half):
    b = [80.0, 70, 75, 60, 90][: len(differences)]
    a = [x + y for x, y in zip(differences, b, strict=True)]
    assert paired_interval(a, b) == pytest.approx([mean - half, mean + half])
    assert paired_interval(b, a) == pytest.approx([-mean - half, -mean + half])


@pytest.mark.filterwarnings('error')
def test_interval_of_equal_differences():
    assert paired_interval([3.0, 4.0], [1.0, 2.0]) == [2.0, 2.0]
    assert paired_interval([80.3, 79.7], [80.3, 79.7]) == [0, 0]


def test_runs_of_other_seeds_are_refused():
    with pytest.raises(ValueError, match='shorter'):
        paired_interval([1.0, 2.0], [2.0])


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


def test_the_page_is_what_the_file_says():
    text = (ROOT / 'docs/claims.md').read_text()
    assert text == page(CLAIMS, TABLE)
    for name, part in TABLE['parts'].items():
        found = [claim['verdict'] for claim in CLAIMS if claim['part'] == name]
        counts = [found.count(each) for each in ('supported', 'not supported', 'undecided')]
        assert (f'| {part["title"]} | {" | ".join(map(str, counts))} |' in text) == bool(found)


@pytest.mark.parametrize(
    'claim', CLAIMS, ids=lambda claim: f'{claim["claim"]}, {claim["metric"]}, {claim["set"]}'
)
def test_verdicts_follow_from_the_runs_by_the_rule(claim):
    part = TABLE['parts'][claim['part']]
    (declared,) = [each for each in part['claims'] if each['claim'] == claim['claim']]
    assert list(claim['runs']) == [declared['better'], declared['worse']]
    assert all(len(values) == len(TABLE['seeds']) for values in claim['runs'].values())
    better, worse = claim['runs'].values()
    lower = part['metrics'][claim['metric']].get('lower')
    interval = paired_interval(worse, better) if lower else paired_interval(better, worse)
    assert claim['difference'] == pytest.approx(interval)  # the quantile is SciPy's
    assert claim['verdict'] == verdict(*claim['difference'])


def test_the_status_line_of_the_readme():
    verdicts = {
        name: [
            claim['verdict']
            for claim in CLAIMS
            if claim['part'] == 'speed'
            and claim['metric'].startswith('top-1')
            and claim['claim'] == f'GCP is better than {name}'
        ]
        for name in ('GAP', 'GAP without down-sampling')
    }
    assert sorted(verdicts['GAP']) == ['supported', 'undecided', 'undecided']
    assert verdicts['GAP without down-sampling'] == ['undecided'] * 3
    fast = [c['verdict'] for c in CLAIMS if c['claim'] == 'GCP is more accurate than GAP, LRfast']
    assert sorted(fast) == ['not supported', 'undecided', 'undecided']
    text = ' '.join((ROOT / 'README.md').read_text().split())
    assert 'GCP is more accurate than GAP on one of three small datasets. Against GAP' in text
    assert 'all three are undecided. With 6 epochs, GAP is more accurate on one' in text


def test_the_file_has_every_claim_of_the_parts_it_has():
    parts = list(dict.fromkeys(claim['part'] for claim in CLAIMS))
    declared = [
        (name, place, metric, claim['claim'])
        for name in parts
        for place in TABLE['parts'][name]['sets']
        for metric in TABLE['parts'][name]['metrics']
        for claim in TABLE['parts'][name]['claims']
    ]
    assert [(c['part'], c['set'], c['metric'], c['claim']) for c in CLAIMS] == declared


def networks_of(part):
    return reproduce['networks_in'](TABLE['parts'][part])


@pytest.mark.parametrize('table', ['claims', 'claims_cifar'])
def test_tables_are_valid(table):
    reproduce['check_table'](yaml.safe_load((ROOT / f'tools/{table}.yml').read_text()))


@pytest.mark.parametrize(
    ('keys', 'value', 'words'),
    [
        (('networks', 'GCP LRnorm', 'like'), 'GPC', "GCP LRnorm: networks has no 'GPC'"),
        (('seeds',), [0], r'seeds: expected at least 2, got \[0\]'),
        (('parts', 'speed', 'sets'), ['digit'], "speed: sets has no 'digit'"),
        (('parts', 'speed', 'curves'), ['GPC'], "speed: networks has no 'GPC'"),
        (('parts', 'speed', 'metrics', 'x'), {'lower': True}, r"speed: x: .*'curve'.*got \[\]"),
        (('parts', 'speed', 'metrics', 'x'), {'curve': 'a', 'lowr': True}, r"got \['lowr'\]"),
        (('parts', 'speed', 'metrics', 'x'), {'classifier': 'mce'}, "'mCE'.*got 'mce'"),
    ],
)
def test_a_wrong_table_is_refused(keys, value, words):
    table = copy.deepcopy(TABLE)
    *path, last = keys
    functools.reduce(lambda node, key: node[key], path, table)[last] = value
    with pytest.raises(ValueError, match=words):
        reproduce['check_table'](table)


def test_a_network_like_another_has_its_backbone():
    table = {'networks': {'a': {'config': 'x', 'from': ['s', 't']}, 'b': {'like': 'a'}}}
    found = reproduce['network_of'](table, 'b')
    assert (found['config'], found['from'], found['options']) == ('x', ['s', 't'], {})


@functools.cache  # many differ in their training alone
def check_step(network):
    """A step of training of a network that :func:`network_of` describes."""
    cfg = Config(json.loads(network))
    model = build_model(cfg)
    if cfg.default_scope == 'mmdet':
        with_mask = 'mask_head' in cfg.model.roi_head
        batch = demo_mm_inputs(
            1, image_shapes=(3, 96, 96), num_classes=10, num_items=[2], with_mask=with_mask
        )
        losses = model(**model.data_preprocessor(batch, True), mode='loss')
    else:
        samples = [DataSample().set_gt_label(k) for k in (3, 7)]
        losses = model(torch.randn(2, 3, 64, 64), samples, mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize('name', TABLE['networks'])
def test_declared_networks_train_and_are_compared(name):
    places = [
        place
        for part in TABLE['parts']
        if name in networks_of(part)
        for place in TABLE['parts'][part]['sets']
    ]
    run = reproduce['Run'](TABLE, Path(), places[0], name, 0.1, 0)
    cfg = resolve_config(run.source)
    cfg.merge_from_dict(run.options)
    check_step(network_of(cfg))
