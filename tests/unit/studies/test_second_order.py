"""Eq. (6) and (7) of the paper, what is measured of gradients, and the tool that prints it."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch.nn import functional as F  # noqa: N812

from gcp_mm.ops import global_covariance_pooling, matrix_sqrt_eigh, triu_vector
from gcp_mm.ops.covariance import covariance
from gcp_mm.ops.triangle import triu_vector_adjoint
from gcp_mm.studies.gcp_gradient import gcp_gradient, trimmed_gcp_gradient, trimmed_preconditioner
from gcp_mm.studies.second_order import (
    cosine,
    fit_head,
    last_conv,
    measure_formulas,
    measure_gradients,
    spectrum,
)
from tests.helpers.runs import ROOT

# Fewer positions than channels make the covariance singular, as that of real features is.
SHAPES = [(2, 6, 5, 8), (2, 9, 2, 3)]


def features(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    # Channels of different scales, correlated
    mix = torch.randn(shape[1], shape[1], generator=generator, dtype=torch.float64)
    return torch.einsum('dc,bchw->bdhw', mix, x)


@pytest.mark.parametrize('shape', SHAPES)
def test_equation_6_is_what_autograd_finds(shape):
    x = features(shape).requires_grad_()
    vector = global_covariance_pooling(x, norm='eigh')
    grad = torch.randn_like(vector)
    (expected,) = torch.autograd.grad(vector, x, grad)
    found = gcp_gradient(x.detach(), triu_vector_adjoint(grad) / 2)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_equation_6_is_what_finite_differences_find():
    """The square root by SciPy's general matrix function, dL/dZ not symmetric."""
    from scipy.linalg import sqrtm

    x = features((1, 4, 3, 3))
    grad = torch.randn(1, 4, 4, dtype=torch.float64)

    def loss(x):
        flat = x[0].reshape(4, -1)
        return float((grad[0].numpy() * sqrtm(np.cov(flat, bias=True)).real).sum())

    found = gcp_gradient(x, grad).numpy()
    for index in np.ndindex(*x.shape):
        step = np.zeros(x.shape)
        step[index] = 1e-5
        difference = (loss(x.numpy() + step) - loss(x.numpy() - step)) / 2e-5
        assert found[index] == pytest.approx(difference, rel=1e-6, abs=1e-8)


def test_equation_6_refuses_a_repeated_eigenvalue():
    x = torch.tensor([[[1.0, -1, 0, 0], [0, 0, 1, -1]]])  # covariance I / 2
    with pytest.raises(ValueError, match='positive eigenvalue twice'):
        gcp_gradient(x, torch.eye(2)[None])
    assert matrix_sqrt_eigh(covariance(x)).isfinite().all()
    with pytest.raises(ValueError, match=r'grad: expected dL/dZ of shape .* \(1, 2, 2\)'):
        gcp_gradient(x, torch.zeros(1, 2, 3))
    with pytest.raises(TypeError, match='floating-point'):
        gcp_gradient(x.int(), torch.eye(2)[None])


def test_equation_7_term_by_term():
    """As printed, in NumPy and with J built."""
    x = features((1, 4, 3, 3))
    grad = torch.randn(1, 4, 4, dtype=torch.float64)
    flat = x[0].flatten(1).numpy().T
    n = len(flat)
    j = (np.eye(n) - np.ones((n, n)) / n) / n
    lam, u = np.linalg.eigh(flat.T @ j @ flat)
    lam, u = lam[::-1], u[:, ::-1]
    k = np.array([[0 if a == b else 1 / (a - b) for b in lam] for a in lam])
    root, inverse_root = np.diag(lam**0.5), np.diag(lam**-0.5)
    for form, middle in dict(
        printed=2 * k.T * root + inverse_root / 2,
        product=2 * k.T @ root + inverse_root / 2,
        eigenbasis=u @ (2 * k.T * root + inverse_root / 2) @ u.T,
    ).items():
        expected = 2 * j @ flat @ middle @ grad[0].numpy()
        found = trimmed_gcp_gradient(x, grad, form)[0].flatten(1).T
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_equation_7_is_exact_where_channels_are_uncorrelated_and_grad_diagonal():
    """There the commutations of the paper's appendix II hold."""
    x = torch.zeros(1, 3, 6, dtype=torch.float64)
    for channel, scale in enumerate((3.0, 2, 1)):
        x[0, channel, 2 * channel : 2 * channel + 2] = torch.tensor([scale, -scale])
    grad = torch.diag_embed(torch.tensor([[0.3, -2, 5]], dtype=torch.float64))
    for form in ('printed', 'eigenbasis'):
        torch.testing.assert_close(trimmed_gcp_gradient(x, grad, form), gcp_gradient(x, grad))


@pytest.mark.parametrize('shape', SHAPES)
def test_trimmed_preconditioner_in_the_eigenbasis_whitens(shape):
    n, rank = shape[2] * shape[3], min(shape[1], shape[2] * shape[3] - 1)
    s = torch.linalg.svdvals(trimmed_preconditioner(features(shape), 'eigenbasis'))
    expected = torch.zeros_like(s)
    expected[:, :rank] = n**-0.5
    torch.testing.assert_close(s, expected)


def test_trimmed_preconditioner_names_its_forms():
    with pytest.raises(ValueError, match=r"form: expected one of .*'printed'.*, got 'x'"):
        trimmed_preconditioner(features(SHAPES[0]), 'x')


def test_spectrum_of_a_known_matrix():
    u = torch.linalg.qr(torch.randn(6, 4)).Q
    v = torch.linalg.qr(torch.randn(5, 5)).Q[:, :4]
    found = spectrum(u @ torch.diag(torch.tensor([4.0, 2, 1, 0])) @ v.T)
    assert found.norm == pytest.approx(21**0.5, rel=1e-5)
    assert found.rank == 3
    assert found.condition == pytest.approx(4, rel=1e-5)
    assert found.stable_rank == pytest.approx(21 / 16, rel=1e-5)
    assert spectrum(torch.zeros(3, 2))[:2] == (0, 0)


def small_network():
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 5, 2))
    return trunk.double(), nn.Linear(5, 3).double()


def test_gradients_of_gap_are_those_of_the_whole_set():
    trunk, fc = small_network()
    images = torch.randn(5, 3, 7, 7, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 1, 0])

    def classify(x):
        return fc(x.mean((2, 3)))

    found = measure_gradients(
        *(trunk, classify, F.cross_entropy, {'conv': trunk[2], 'fc': fc}),
        [(images[:3], targets[:3]), (images[3:], targets[3:])],
    )
    F.cross_entropy(classify(trunk(images)), targets).backward()
    assert found.loss == pytest.approx(F.cross_entropy(classify(trunk(images)), targets).item())
    assert found.accuracy == (classify(trunk(images)).argmax(1) == targets).double().mean()
    for name, layer in (('conv', trunk[2]), ('fc', fc)):
        expected = torch.cat((layer.weight.grad.flatten(1), layer.bias.grad[:, None]), 1)
        torch.testing.assert_close(found.layers[name], expected)
        # Of the factors too the average over images counts, not over batches
        assert found.factors[name][0][-1, -1].item() == pytest.approx(16 if name == 'conv' else 1)
    # The mean over positions spreads its gradient evenly
    for image, gradient in enumerate(found.features):
        x = trunk(images[image : image + 1])
        (z,) = torch.autograd.grad(
            F.cross_entropy(fc(v := x.mean((2, 3))), targets[image : image + 1]), v
        )
        torch.testing.assert_close(gradient, z.expand(16, 5) / 16)
        assert spectrum(gradient).rank == 1


def test_gradients_of_gap_and_gcp_are_orthogonal_at_x():
    """GAP reads the mean over positions, GCP the deviations from it."""
    trunk, _ = small_network()
    images = torch.randn(4, 3, 7, 7, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 1])
    of_gap, of_gcp = nn.Linear(5, 3).double(), nn.Linear(15, 3).double()
    gap, gcp = (
        measure_gradients(trunk, classify, F.cross_entropy, {}, [(images, targets)])
        for classify in (
            lambda x: of_gap(x.mean((2, 3))),
            lambda x: of_gcp(global_covariance_pooling(x)),
        )
    )
    for a, b in zip(gap.features, gcp.features, strict=True):
        assert a.norm() > 0
        assert b.norm() > 0
        assert cosine(a, b) == pytest.approx(0, abs=1e-12)


def test_formulas_on_features():
    x = features((3, 6, 5, 8))
    head = nn.Linear(21, 4).double()
    targets = torch.tensor([0, 1, 3])
    found = measure_formulas(x, lambda v: F.cross_entropy(head(v), targets), iterations=30)
    exact = found.pop('autograd, exact square root')
    assert exact['cosine'] == pytest.approx([1] * 3)
    assert exact['norm'] == pytest.approx([1] * 3)
    # So many iterations have converged
    assert found.pop('autograd, 30 Newton-Schulz iterations')['norm'] == pytest.approx([1] * 3)
    assert len(found) == 3
    leaf = x.clone().requires_grad_()
    vector = triu_vector(matrix_sqrt_eigh(covariance(leaf)))
    (expected,) = torch.autograd.grad(F.cross_entropy(head(vector), targets), leaf)
    vector = vector.detach().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(head(vector), targets), vector)
    trimmed = trimmed_gcp_gradient(x, triu_vector_adjoint(grad) / 2, 'product')
    row = found['eq. (7), product']
    assert row['cosine'] == pytest.approx(
        [cosine(a, b) for a, b in zip(trimmed, expected, strict=True)]
    )


def test_fitted_head_is_the_minimum():
    torch.manual_seed(0)
    vectors = 3 + 0.1 * torch.randn(40, 5, dtype=torch.float64)
    targets = torch.arange(40) % 3
    head = fit_head(vectors, targets, F.cross_entropy, 3, weight_decay=1e-3)
    loss = F.cross_entropy(head(vectors), targets) + 1e-3 / 2 * head.weight.square().sum()
    for grad in torch.autograd.grad(loss, tuple(head.parameters())):
        assert grad.abs().max() < 1e-5
    assert loss < torch.log(torch.tensor(3.0))


def test_last_conv_is_the_last_to_run():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.late, self.early = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            return self.late(self.early(x))

    net = Net()
    assert last_conv(lambda: net(torch.zeros(1, 2, 1, 1)), net) == 'late'
    with pytest.raises(ValueError, match=r'no nn.Conv2d runs'):
        last_conv(lambda: None, net)


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory, digits):
    """Configs of narrow GAP and GCP networks on the digits, and a checkpoint of each."""
    folder = tmp_path_factory.mktemp('second_order')
    found = []
    for name, neck, width in (
        ('resnet18-gcp_1xb64-5e_digits', 'dict(in_channels=64, reduction=(12,))', 78),
        ('resnet18_1xb64-5e_digits', 'dict()', 64),
    ):
        path = folder / f'{name}.py'
        path.write_text(
            f"_base_ = '{ROOT}/configs/digits/{name}.py'\n"
            'model = dict(backbone=dict(stem_channels=8, base_channels=8), '
            f'neck={neck}, head=dict(in_channels={width}))\n'
            f"data = dict(num_workers=0, batch_size=12, dataset=dict(data_root='{digits}'))\n"
            'train_dataloader = val_dataloader = test_dataloader = data\n'
        )
        cfg = Config.fromfile(path)
        init_default_scope('mmpretrain')
        torch.manual_seed(0)
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
        model.init_weights()
        torch.save(dict(state_dict=model.state_dict()), path.with_suffix('.pth'))
        found += [path, path.with_suffix('.pth')]
    return found


def run_second_order(run_tool, files, out, *options):
    gcp, gcp_checkpoint, gap, gap_checkpoint = files
    return run_tool(
        *('tools/second_order.py', gcp, gcp_checkpoint, '--gap', gap, gap_checkpoint),
        *('--out', out, *options),
    )


def test_tool_compares_the_gradients(run_tool, checkpoints, tmp_path):
    options = ('--split', 'test', '--images', 24, '--head-images', 60, '--damping', '1e-2', '1e8')
    done = run_second_order(run_tool, checkpoints, tmp_path, *options)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / 'second_order.md').read_text() in done.stdout
    assert (tmp_path / 'second_order.png').stat().st_size > 10_000
    results = json.loads((tmp_path / 'second_order.json').read_text())
    gcp, gap = results['gcp'], results['gap']
    assert gcp['images'] == 24
    assert gcp['head_images'] == 60
    assert (gcp['layer'], gap['layer']) == ('neck.reduction.0.conv', 'backbone.layer4.1.conv2')
    formulas = gcp['formulas']
    assert formulas['autograd, exact square root']['cosine']['min'] == pytest.approx(1)
    assert formulas['autograd, 5 Newton-Schulz iterations']['cosine']['min'] > 0.9
    assert abs(gcp['features']['GAP']['cosine']['mean']) < 1e-4
    assert gcp['features']['GAP']['rank']['max'] == 1
    for rows in (gcp['weight'], gcp['classifier'], gap['weight']):
        weak, strong = rows[-2:]
        assert (weak['damping'], strong['damping']) == (0.01, 1e8)
        # So much damping leaves nothing of the preconditioner
        assert strong['cosine']['GAP'] == pytest.approx(1, abs=1e-4)
        assert strong['preconditioner_condition'] == pytest.approx(1, abs=1e-2)
        assert weak['preconditioner_condition'] > 2
        assert weak['cosine']['GAP'] < 0.999


def test_tool_wants_gcp_first(run_tool, checkpoints, tmp_path):
    done = run_second_order(run_tool, [*checkpoints[2:], *checkpoints[:2]], tmp_path)
    assert done.returncode != 0
    assert 'whose neck is a GlobalCovariancePooling, got GlobalAveragePooling' in done.stdout
