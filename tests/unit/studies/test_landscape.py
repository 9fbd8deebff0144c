"""M_l and M_g against direct computations, and the configs of the paper's Figure 2."""

import copy
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import HOOKS, init_default_scope
from torch import nn
from torch.nn.functional import cross_entropy

from gcp_mm.ops import global_covariance_pooling
from gcp_mm.runtime.network import untouched
from gcp_mm.studies.landscape import LandscapeHook, measure_landscape, split_at
from tests.helpers.configs import CONFIGS, load, outline

ETAS = (0.1, 1.0, 10.0)


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
    weight, targets = torch.tensor(w), torch.tensor(labels)
    losses, distances = measure_landscape(
        torch.tensor(x), lambda x: cross_entropy(x @ weight, targets), ETAS
    )
    np.testing.assert_allclose(losses, [loss for loss, _ in expected], rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        distances, [np.linalg.norm(g - g_eta) for _, g_eta in expected], rtol=0, atol=1e-10
    )


class SmallNet(nn.Module):
    """Stem, then batch normalization, convolution, dropout, covariance pooling and a classifier."""

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


def measure(net, images, labels, etas=ETAS):
    x, rest = split_at(net, 'stem', lambda: net(images))
    return measure_landscape(x, lambda x: cross_entropy(rest(x), labels), etas)


def test_split_network(net, batch):
    x, rest = split_at(net, 'stem', lambda: net(batch[0]))
    assert torch.equal(x, net.stem(batch[0]))
    out = net.bn(net.conv((x + 1).relu()))
    assert torch.equal(rest(x + 1), net.classifier(global_covariance_pooling(out)))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_are_measured_in_float32(net, batch, dtype):
    net.eval()
    with torch.no_grad():
        x = net.stem(batch[0]).to(dtype)

    def loss(x):
        assert x.dtype == torch.float32
        out = net.conv(x)
        assert out.dtype == torch.float32
        return cross_entropy(out.mean((2, 3)), batch[1])

    expected = measure_landscape(x.float(), loss, ETAS)
    with torch.autocast('cpu', torch.bfloat16), torch.no_grad():
        found = measure_landscape(x, loss, ETAS)
    for value, reference in zip(found, expected, strict=True):
        assert value.dtype == torch.float32
        assert torch.equal(value, reference)


def test_number_of_passes(net, batch):
    passes = dict(forward=0, backward=0)

    def count(name):
        def hook(*args):
            passes[name] += 1

        return hook

    net.conv.register_forward_hook(count('forward'))
    net.conv.register_full_backward_hook(count('backward'))
    measure(net, *batch, torch.linspace(0.1, 75, 50))
    assert passes == dict(forward=52, backward=51)


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
        measure_landscape(torch.ones(2), torch.sum, etas)


def test_wrong_features():
    with pytest.raises(TypeError, match=r'torch\.int64'):
        measure_landscape(torch.ones(2).long(), torch.sum, ETAS)


@pytest.mark.parametrize(
    ('stem', 'words'),
    [
        ('twice', r"stem='twice': .*\['Tensor', 'Tensor'\]"),
        ('never', r"stem='never': .*\[\]"),
        ('pair', r"stem='pair': .*\['tuple'\]"),
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
        split_at(net, stem, run)
    torch.testing.assert_close(run(), torch.ones(1, 1, 2))  # the hook is gone


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(interval=0), 'interval: .* 1, got 0'),
        (dict(num_points=1), 'num_points: .* 2, got 1'),
        (dict(eta_range=(75, 0.1)), r'eta_range: .* got \(75, 0\.1\)'),
        (dict(eta_range=(0, float('inf'))), 'eta_range'),
        (dict(eta_range=5), 'eta_range: .* got 5'),
        (dict(eta_range=(1, 2, 3)), r'eta_range: .* got \(1, 2, 3\)'),
    ],
)
def test_wrong_arguments_of_the_hook(options, words):
    with pytest.raises(ValueError, match=words):
        LandscapeHook(**{**dict(interval=5, eta_range=(0.1, 75)), **options})


def test_etas_are_evenly_spaced():
    etas = LandscapeHook(500, ConfigDict(r=(0.1, 75)).r).etas
    assert len(etas) == 50
    assert etas == pytest.approx([0.1 + k * 74.9 / 49 for k in range(50)], rel=1e-12)


FIGURE_2 = {
    'resnet18': dict(steps=100_000, interval=500, etas=(0.1, 75), batch=256, stem='maxpool'),
    'mobilenet-v2': dict(steps=500_000, interval=1000, etas=(0.045, 1.5), batch=96, stem='conv1'),
}


@pytest.mark.parametrize('path', [p for p in CONFIGS if re.match(r'.*/landscape/.*_in1k\.py', p)])
def test_configs_are_those_of_figure_2(path):
    """Section 3.2 and appendix I of the paper."""
    name = Path(path).name
    net, gpus, batch = re.match(r'(\w.*?)(?:-gcp)?_(\d+)xb(\d+)-landscape_', name).groups()
    paper = FIGURE_2[net]
    cfg = load(path)
    assert int(gpus) * int(batch) == cfg.auto_scale_lr.base_batch_size == paper['batch']
    assert cfg.train_dataloader.batch_size == int(batch)
    steps = -(-1_281_167 // paper['batch'])  # of an epoch of ImageNet
    assert (cfg.train_cfg.max_epochs - 1) * steps < paper['steps']
    assert cfg.train_cfg.max_epochs * steps >= paper['steps']
    init_default_scope(cfg.default_scope)
    hook = HOOKS.build(cfg.default_hooks.landscape)
    assert hook.interval == paper['interval']
    assert (hook.etas[0], hook.etas[-1], len(hook.etas)) == (*paper['etas'], 50)
    model = outline(path)
    assert hook.stem == f'backbone.{paper["stem"]}'
    model.get_submodule(hook.stem)
    assert not [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p > 0]
