"""Pairs of channels behind a prediction, against sums and loops that are written out."""

from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest
import torch
from mmpretrain.models.heads import LinearClsHead

from gcp_mm.models import GlobalCovariancePooling
from gcp_mm.studies.covariance_view import channel_order, draw_covariance, view_covariance

D, CLASSES = 6, 4


@pytest.fixture
def network():
    """A neck and a head in eval mode, with features to pool."""
    torch.manual_seed(0)
    neck = GlobalCovariancePooling(8, (D,), norm='eigh').eval()
    head = LinearClsHead(CLASSES, neck.out_channels, init_cfg=None).eval()
    return neck, head, torch.randn(1, 8, 5, 7)


@pytest.fixture
def view(network):
    neck, head, features = network
    return view_covariance(neck(features)[0], head.fc.weight, head.fc.bias)


@torch.no_grad()
def test_view_of_a_prediction_adds_up(network, view):
    neck, head, features = network
    logits = head((neck(features),))[0]
    exact = head.fc.double()(neck(features)[0].double())
    assert view['logit'] == pytest.approx(exact.max().item(), rel=1e-13)
    assert [view['label'], view['runner_up']] == logits.argsort(descending=True)[:2].tolist()
    assert view['positive'] + view['negative'] + view['bias'] == pytest.approx(
        view['logit'], abs=1e-12
    )
    assert view['bias'] == head.fc.bias[view['label']].item()
    assert view['negative'] < 0 < view['positive']


@torch.no_grad()
def test_pairs_are_the_matrix_entries_that_add_most(network, view):
    neck, head, features = network
    maps = neck.reduction(features)[0].flatten(1).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(maps, bias=True))
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    np.testing.assert_allclose(view['root'], root, atol=1e-5)
    assert torch.equal(view['root'], view['root'].mT)

    expected = []
    for k, (i, j) in enumerate(combinations_with_replacement(range(D), 2)):
        adds, others = (
            head.fc.weight[c, k].item() * view['root'][i, j].item()
            for c in (view['label'], view['runner_up'])
        )
        expected.append((adds, i, j, adds - others))
    expected.sort(reverse=True)
    assert len(view['pairs']) == 10
    for pair, (adds, i, j, lead) in zip(view['pairs'], expected, strict=False):
        assert (pair['i'], pair['j']) == (i, j)
        assert pair['value'] == view['root'][i, j].item()
        assert pair['contribution'] == pytest.approx(adds)
        assert pair['contribution'] == pytest.approx(pair['weight'] * pair['value'])
        assert pair['lead'] == pytest.approx(lead)


@torch.no_grad()
def test_leads_of_all_pairs_and_biases_are_the_lead(network):
    neck, head, features = network
    vector = neck(features)[0]
    view = view_covariance(vector, head.fc.weight, count=1000)
    first, second = (head.fc.weight @ vector).topk(2).values.tolist()
    assert len(view['pairs']) == D * (D + 1) // 2
    assert view['bias'] == 0
    assert sum(pair['lead'] for pair in view['pairs']) == pytest.approx(first - second, rel=1e-4)


def test_order_brings_alike_channels_together():
    group = torch.arange(12) % 3  # of each channel
    root = torch.where(group[:, None] == group, 0.8, 0.1) + 0.2 * torch.eye(12)
    scale = torch.linspace(0.5, 5, 12)
    order = channel_order(scale[:, None] * root * scale)
    assert sorted(order) == list(range(12))
    assert sum(a != b for a, b in pairwise(group[order].tolist())) == 2


@pytest.mark.parametrize('channels', [1, 2, 3])
def test_channels_that_are_zero_have_a_place_in_the_order(channels):
    assert sorted(channel_order(torch.zeros(channels, channels))) == list(range(channels))


@pytest.mark.parametrize(
    ('shape', 'message'), [((1, 6), r'got \(1, 6\)'), ((5,), r'length D\(D\+1\)/2')]
)
def test_what_does_not_fit_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        view_covariance(torch.zeros(shape), torch.zeros(2, shape[-1]))


@torch.no_grad()
def test_drawing_shows_what_the_view_holds(network, view, tmp_path):
    neck, _, features = network
    maps = neck.reduction(features)[0]
    picture = np.full((50, 70, 3), 90, np.uint8)
    figure = draw_covariance(view, picture, maps, ('seven $', 'one'), 0.625)
    figure.savefig(tmp_path / 'view.png', dpi=100)  # lays out; no warning of a name's dollar sign

    shown, matrix, table = figure.subfigs[0].axes[:3]
    assert shown.get_title() == 'seven $: 62.5%'
    assert f'logit {view["logit"]:.2f}' in shown.get_xlabel()
    drawn = matrix.images[0].get_array()
    np.testing.assert_array_equal(drawn, view['root'][np.ix_(view['order'], view['order'])])
    assert 'one' in table.get_xlabel()
    cells = table.tables[0].get_celld()
    for number, pair in enumerate(view['pairs'], 1):
        row = [cells[number, column].get_text().get_text() for column in range(7)]
        assert row[:4] == [str(number), str(pair['i']), str(pair['j']), f'{pair["value"]:.3g}']
        assert float(row[5]) == pytest.approx(pair['contribution'], rel=0.005)
    # Each marked entry is the one its row of the table names.
    for line, pair in zip(matrix.lines, view['pairs'], strict=True):
        (column,), (row,) = line.get_data()
        assert drawn[int(row), int(column)] == pair['value']

    panels = [axes for axes in figure.subfigs[1].axes if axes.images]
    first = view['pairs'][0]
    np.testing.assert_allclose(panels[0].images[1].get_array(), maps[first['i']], rtol=1e-6)
    covariance = next(panel for panel in panels if 'variance' in panel.get_title())
    i, j = (maps[k].flatten().double().numpy() for k in (first['i'], first['j']))
    product = covariance.images[1].get_array()
    assert product.mean() == pytest.approx(np.cov(i, j, bias=True)[0, 1], rel=1e-5)
