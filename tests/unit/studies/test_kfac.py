"""K-FAC's factors against explicit Fisher matrices, and the optimizer wrapper in real runs."""

import copy
import itertools

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from gcp_mm.studies.kfac import (
    capture_factors,
    inverse_factors,
    kfac_layers,
    precondition,
    weight_matrix,
)
from tests.helpers.kfac_net import Net, batch, make


def matrix_gradient(layer):
    return weight_matrix(layer.weight.grad, None if layer.bias is None else layer.bias.grad)


def fisher(layer, losses):
    """Mean of the outer products of each image's gradient, columns of the matrix stacked."""
    total = 0
    for loss in losses:
        layer.zero_grad()
        loss.backward(retain_graph=True)
        g = matrix_gradient(layer).T.flatten()
        total = total + torch.outer(g, g) / len(losses)
    return total


def independent_case(layer, images, positions):
    """Images and targets for which a layer's Fisher matrix is a Kronecker product.

    With weights of zero and a squared loss the gradient at the outputs is minus the target: every
    image meets every combination of targets of either sign at each position, so that inputs and
    gradients, and gradients at two positions, are uncorrelated.
    """
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    signs = torch.tensor([[1.0, 2, -1], [-1, -2, 1], [3, 0, 1], [-3, 0, -1]]).double()
    pairs = list(itertools.product(images, itertools.product(signs, repeat=positions)))
    return (
        torch.stack([image for image, _ in pairs]),
        torch.stack([torch.stack(target, -1) for _, target in pairs]),
    )


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('kind', ['linear', 'conv'])
def test_factors_give_the_fisher_matrix_where_it_is_a_kronecker_product(kind, bias):
    torch.manual_seed(0)
    if kind == 'linear':
        layer = nn.Linear(4, 3, bias=bias).double()
        inputs, targets = independent_case(layer, torch.randn(3, 4).double(), 1)
        targets = targets[..., 0]
    else:  # padded, strided and dilated: two positions
        layer = nn.Conv2d(2, 3, 2, bias=bias, padding=(0, 1), stride=(1, 2), dilation=(1, 2))
        layer = layer.double()
        inputs, targets = independent_case(layer, torch.randn(2, 2, 2, 3).double(), 2)

    def losses():
        outputs = layer(inputs).reshape(targets.shape)
        return (outputs - targets).square().flatten(1).sum(1) / 2

    with capture_factors(dict(layer=layer)) as factors:
        loss = losses().mean()
    loss.backward()
    a, g = factors['layer']
    torch.testing.assert_close(torch.kron(a, g), fisher(layer, losses()))

    # The natural gradient is that of the explicit inverse.
    layer.zero_grad()
    losses().mean().backward()
    grad = matrix_gradient(layer).clone()
    pi = np.sqrt(np.trace(a) / len(a) / (np.trace(g) / len(g)))
    explicit = np.kron(
        a.numpy() + pi * 0.1**0.5 * np.eye(len(a)), g.numpy() + 0.1**0.5 / pi * np.eye(len(g))
    )
    expected = np.linalg.solve(explicit, grad.T.flatten().numpy())
    product = precondition(layer, inverse_factors(a, g, 0.1))
    natural = matrix_gradient(layer)
    np.testing.assert_allclose(natural.T.flatten().numpy(), expected, rtol=1e-9)
    assert product.item() == pytest.approx((natural * grad).sum().item())


def test_factors_within_a_network_are_those_of_each_image():
    net = Net()
    data = batch()
    assert list(kfac_layers(net)) == ['conv', 'fc']
    with capture_factors(kfac_layers(net)) as factors:
        loss = net(**data)['loss']
    loss.backward()
    a = g = a_fc = g_fc = 0
    for image, target in zip(data['inputs'], data['targets'], strict=True):
        x = net.conv(image[None])
        x.retain_grad()
        vector = net.grouped(F.relu(x)).mean((2, 3))
        scores = net.fc(vector)
        scores.retain_grad()
        F.cross_entropy(scores, target[None]).backward()
        padded = F.pad(image, (1, 1, 1, 1))
        for row, col in itertools.product(range(5), repeat=2):
            patch = padded[:, row : row + 3, col : col + 3].flatten()
            a = a + torch.outer(patch, patch) / 6
            at = x.grad[0, :, row, col]
            g = g + torch.outer(at, at) / 6 / 25
        vector = torch.cat((vector[0], torch.ones(1).double()))
        a_fc = a_fc + torch.outer(vector, vector) / 6
        g_fc = g_fc + torch.outer(scores.grad[0], scores.grad[0]) / 6
    for found, expected in zip((*factors['conv'], *factors['fc']), (a, g, a_fc, g_fc), strict=True):
        torch.testing.assert_close(found, expected)
    assert not net.conv._forward_hooks
    factors.clear()
    net(**data)['loss'].backward()
    assert not factors


def test_recomputed_activations_are_counted_once():
    layer = nn.Linear(3, 2).double()
    x = torch.randn(4, 3).double()
    with capture_factors(dict(layer=layer)) as plain:
        layer(x).square().mean().backward()
    with capture_factors(dict(layer=layer)) as recomputed:
        # The reentrant kind runs first without recording gradients.
        checkpoint(layer, x.requires_grad_(), use_reentrant=True).square().mean().backward()
    for a, b in zip(plain['layer'], recomputed['layer'], strict=True):
        torch.testing.assert_close(a, b)


def test_layer_that_runs_twice_is_refused():
    layer = nn.Linear(3, 3)
    with capture_factors(dict(twice=layer)):
        loss = layer(layer(torch.randn(2, 3))).sum()
    with pytest.raises(ValueError, match='twice: gradients reach the layer more than once'):
        loss.backward()


def test_frozen_layers_are_left_alone():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Conv2d(1, 1, 2, padding='same'))
    net[0].bias.requires_grad_(False)
    assert list(kfac_layers(net)) == ['1']


def test_damping_of_a_factor_that_is_zero():
    a, g = torch.eye(3), torch.zeros(2, 2)
    assert inverse_factors(a, g, 0.04)[1].diagonal().tolist() == pytest.approx([1 / 0.2, 1 / 0.2])


def test_factors_that_have_no_inverse_are_named():
    wrapper = make(damping=0.01)[1]
    state = wrapper.state_dict()
    state['kfac'] = dict(conv=(torch.full((2, 2), torch.nan), torch.eye(2)))
    with pytest.raises(ValueError, match=r'conv: .* no inverse with damping=0.01'):
        wrapper.load_state_dict(state)


@pytest.mark.parametrize(
    ('option', 'value'),
    [('damping', 0), ('decay', 1), ('interval', 0), ('interval', 2.0), ('kl_clip', 0)],
)
def test_options_out_of_range_are_named(option, value):
    with pytest.raises((TypeError, ValueError), match=f'{option}: expected .*, got {value}'):
        make(**{option: value})


def reference_steps(net, data, steps, kl_clip, damping=0.05, decay=0.8, lr=0.1):
    """K-FAC with momentum, one matrix at a time."""
    speed = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    averages = {}
    for _ in range(steps):
        net.zero_grad()
        layers = kfac_layers(net)
        with capture_factors(layers) as factors:
            net(**data)['loss'].backward()
        natural, divergence = {}, 0
        for name, layer in layers.items():
            averages[name] = [
                decay * old + (1 - decay) * new
                for old, new in zip(averages.get(name, factors[name]), factors[name], strict=True)
            ]
            grad = matrix_gradient(layer)
            a, g = averages[name]
            pi = float((a.trace() / len(a) / (g.trace() / len(g))).sqrt())
            a = a + pi * damping**0.5 * torch.eye(len(a)).double()
            g = g + damping**0.5 / pi * torch.eye(len(g)).double()
            natural[name] = torch.linalg.solve(g, torch.linalg.solve(a, grad.T).T)
            divergence += lr**2 * (natural[name] * grad).sum()
        nu = min(1, (kl_clip / divergence) ** 0.5)
        for name, matrix in natural.items():
            layer = layers[name]
            width = layer.weight[0].numel()
            layer.weight.grad = nu * matrix[:, :width].reshape(layer.weight.shape)
            if layer.bias is not None:
                layer.bias.grad = nu * matrix[:, width]
        with torch.no_grad():
            for name, p in net.named_parameters():
                speed[name] = 0.9 * speed[name] + p.grad
                p -= lr * speed[name]
    return net


@pytest.mark.parametrize('kl_clip', [1e-4, 1e9])
def test_steps_are_those_of_the_papers(kl_clip):
    net, wrapper = make(damping=0.05, decay=0.8, interval=1, kl_clip=kl_clip)
    expected = reference_steps(copy.deepcopy(net), batch(), 3, kl_clip)
    for _ in range(3):
        net.train_step(batch(), wrapper)
    for p, q in zip(net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def train(net, wrapper, steps, start=0):
    wrapper.initialize_count_status(net, start, 100)
    for step in range(start, start + steps):
        net.train_step(batch(seed=step), wrapper)


def test_resumed_run_goes_on_as_if_never_interrupted():
    net, wrapper = make(interval=3)
    train(net, wrapper, 7)
    first, before = make(interval=3)
    train(first, before, 5)
    state = copy.deepcopy((first.state_dict(), before.state_dict()))
    second, after = make(interval=3)
    second.load_state_dict(state[0])
    after.load_state_dict(state[1])
    train(second, after, 2, start=5)
    for p, q in zip(net.parameters(), second.parameters(), strict=True):
        assert torch.equal(p, q)


def test_run_that_begins_with_a_plain_optimizer_state_finds_factors_first():
    net, wrapper = make(interval=100)
    plain = build_optim_wrapper(net, dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)))
    wrapper.load_state_dict(plain.state_dict())
    train(net, wrapper, 1, start=5)
    assert list(wrapper.state_dict()['kfac']) == ['conv', 'fc']
