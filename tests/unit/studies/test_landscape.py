"""M_l and M_g against direct computations, and a training run that does not notice them."""

import copy
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, cross_entropy

from gcp_mm._io import append_jsonl, drop_jsonl, read_jsonl
from gcp_mm.ops import global_covariance_pooling
from gcp_mm.runtime.untouched import untouched
from gcp_mm.studies import measure_landscape
from gcp_mm.studies.split import find_stem, split_at
from tests.helpers.runs import ROOT

ETAS = (0.1, 1.0, 10.0)


def test_analysis_imports_no_openmmlab_package():
    code = (
        'import sys, types; package = types.ModuleType("gcp_mm"); package.__path__ = ["gcp_mm"]; '
        'sys.modules["gcp_mm"] = package; from gcp_mm.studies import measure_landscape; '
        'print([m for m in sys.modules if m.startswith(("mmengine", "mmcv", "mmpretrain"))])'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == '[]'


def test_softmax_regression_in_numpy():
    """rest(X) = X W: the loss and its gradient are known in closed form."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(6, 4)), rng.normal(size=(4, 3))
    labels = np.array([0, 1, 2, 2, 1, 0])

    def loss_and_gradient(x):
        scores = np.exp(x @ w)
        p = scores / scores.sum(1, keepdims=True)
        loss = -np.log(p[np.arange(6), labels]).mean()
        return loss, (p - np.eye(3)[labels]) @ w.T / 6

    g = loss_and_gradient(x)[1]
    expected = [loss_and_gradient(x + eta * g) for eta in ETAS]
    weight = torch.tensor(w)
    losses, distances = measure_landscape(
        lambda x: x @ weight, cross_entropy, torch.tensor(x), torch.tensor(labels), ETAS
    )
    np.testing.assert_allclose(losses, [loss for loss, _ in expected], rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        distances, [np.linalg.norm(g - g_eta) for _, g_eta in expected], rtol=0, atol=1e-10
    )


class SmallNet(nn.Module):
    """Stem, then batch normalisation, convolution, dropout, covariance pooling and a classifier."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(4, 5, 3)
        self.bn = nn.BatchNorm2d(5)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(15, 3)

    def forward(self, x):
        x = self.dropout(self.bn(self.conv(self.relu(self.stem(x)))))
        return self.classifier(global_covariance_pooling(x))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return SmallNet()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, 8, 8, generator=generator), torch.tensor([0, 1, 2, 0])


def direct(net, images, labels, etas):
    """The same in separate steps: batch normalisation by hand, gradients one loss at a time."""

    def loss_and_gradient(x):
        x = x.detach().requires_grad_()
        y = conv2d(x.relu(), net.conv.weight, net.conv.bias)
        y = (y - y.mean((0, 2, 3), keepdim=True)) / (
            y.var((0, 2, 3), unbiased=False, keepdim=True) + net.bn.eps
        ).sqrt()
        loss = cross_entropy(net.classifier(global_covariance_pooling(y)), labels)
        loss.backward()
        return loss.detach(), x.grad

    y = conv2d(images, net.stem[0].weight)
    x = (y - y.mean((0, 2, 3), keepdim=True)) / (
        y.var((0, 2, 3), unbiased=False, keepdim=True) + net.stem[1].eps
    ).sqrt()
    _, g = loss_and_gradient(x)
    found = [loss_and_gradient(x + eta * g) for eta in etas]
    return torch.stack([loss for loss, _ in found]), torch.stack([(g - h).norm() for _, h in found])


def measure(net, images, labels, etas=ETAS):
    x, rest = split_at(net, 'stem', lambda: net(images))
    return measure_landscape(rest, cross_entropy, x, labels, etas)


def test_split_network_by_hand(net, batch):
    net, images = net.double(), batch[0].double()
    for value, expected in zip(
        measure(net, images, batch[1]), direct(net, images, batch[1], ETAS), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_are_measured_in_float32(net, batch, dtype):
    net.eval()
    with torch.no_grad():
        x = net.stem(batch[0]).to(dtype)

    def rest(x):
        assert x.dtype == torch.float32
        out = net.conv(x)
        assert out.dtype == torch.float32
        return out.mean((2, 3))

    expected = measure_landscape(rest, cross_entropy, x.float(), batch[1], ETAS)
    with torch.autocast('cpu', torch.bfloat16), torch.no_grad():
        found = measure_landscape(rest, cross_entropy, x, batch[1], ETAS)
    for value, reference in zip(found, expected, strict=True):
        assert value.dtype == torch.float32
        assert torch.equal(value, reference)


def test_passes_are_one_more_than_the_steps(net, batch):
    passes = dict(forward=0, backward=0)

    def count(name):
        def hook(*args):
            passes[name] += 1

        return hook

    net.conv.register_forward_hook(count('forward'))
    net.conv.register_full_backward_hook(count('backward'))
    measure(net, *batch, torch.linspace(0.1, 75, 50))
    assert passes == dict(forward=51, backward=51)


def test_dropout_masks_are_the_same_in_every_pass(batch):
    net = SmallNet(dropout=0.5)
    state = torch.get_rng_state()
    first, second = measure(net, *batch, (0.0, 0.0))[0]
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, cross_entropy(net(batch[0]), batch[1]).detach())


def test_untouched_restores_buffers_and_generators(net, batch):
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    with untouched(net):
        measure(net, *batch)
        assert not torch.equal(net.bn.running_mean, before['bn.running_mean'])
        torch.rand(3), np.random.rand(), random.random()
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(p.grad is None for p in net.parameters())
    assert (torch.rand(1), np.random.rand(), random.random()) == expected


@pytest.mark.parametrize('etas', [(), (0.1, float('nan')), (float('inf'),)])
def test_wrong_etas(etas):
    with pytest.raises(ValueError, match='etas: expected finite numbers'):
        measure_landscape(torch.sum, lambda out, _: out, torch.ones(2), None, etas)


def test_wrong_features_and_loss():
    with pytest.raises(TypeError, match=r'x: .*torch\.int64'):
        measure_landscape(torch.sum, lambda out, _: out, torch.ones(2).long(), None, ETAS)
    with pytest.raises(ValueError, match=r'loss_fn: expected a scalar, got shape \(2,\)'):
        measure_landscape(torch.square, lambda out, _: out, torch.ones(2), None, ETAS)


@pytest.mark.parametrize(
    ('stem', 'words'),
    [
        ('twice', r"stem='twice' is used 2 times"),
        ('never', r"stem='never' is not used"),
        ('pair', r"stem='pair' gives a tuple"),
    ],
)
def test_modules_at_which_no_network_is_split(stem, words):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice, self.never = nn.Identity(), nn.Identity()
            self.pair = nn.MaxPool1d(1, return_indices=True)

        def forward(self, x):
            return self.twice(self.twice(self.pair(x)[0]))

    net = Net()
    run = lambda: net(torch.ones(1, 1, 2))  # noqa: E731
    with pytest.raises(ValueError, match=words):
        (lambda x, rest: rest(x))(*split_at(net, stem, run))
    torch.testing.assert_close(run(), torch.ones(1, 1, 2))  # the hook is gone


@pytest.mark.parametrize(
    ('backbone', 'shape'),
    [
        (dict(type='GCPResNet', depth=18), (64, 8, 8)),
        (dict(type='mmpretrain.SEResNet', depth=50), (64, 8, 8)),
        (dict(type='mmpretrain.MobileNetV2'), (32, 16, 16)),
        (dict(type='mmpretrain.ShuffleNetV2'), (24, 16, 16)),
    ],
)
def test_default_stems(backbone, shape):
    from mmengine.registry import MODELS

    model = nn.ModuleDict(dict(backbone=MODELS.build(backbone)))
    model.backbone.eval()
    image = torch.rand(1, 3, 32, 32)
    run = lambda: model.backbone(image)  # noqa: E731
    x, rest = split_at(model, find_stem(model), run)
    assert x.shape == (1, *shape)
    assert (x >= 0).all()
    torch.testing.assert_close(rest(x), run())


def test_stem_that_cannot_be_found():
    model = nn.ModuleDict(dict(backbone=nn.Sequential(nn.ReLU()), head=nn.Linear(2, 2)))
    assert find_stem(model, 'backbone.0') == 'backbone.0'
    with pytest.raises(ValueError, match=r"stem='backbone.1': .* nearest names are 'backbone.0'"):
        find_stem(model, 'backbone.1')
    with pytest.raises(ValueError, match=r"no default for the backbone Sequential .*stem='"):
        find_stem(model)


def test_records_survive_a_crash_and_a_resumption(tmp_path):
    path = tmp_path / 'landscape.jsonl'
    assert drop_jsonl(path, 0) == 0
    for i in range(4):
        append_jsonl(path, dict(iter=i, losses=[0.1 * i]))
    whole = path.read_text()
    path.write_text(whole + '{"iter": 4, "los')
    assert [record['iter'] for record in read_jsonl(path)] == [0, 1, 2, 3]
    assert drop_jsonl(path, 2) == 2
    append_jsonl(path, dict(iter=2, losses=[0.2]))
    assert path.read_text() == ''.join(whole.splitlines(True)[:3])
    assert list(tmp_path.iterdir()) == [path]
    path.write_text('{"iter": 0\n' + whole)
    with pytest.raises(ValueError, match=r'landscape\.jsonl, line 1: .*mend or delete'):
        read_jsonl(path)
