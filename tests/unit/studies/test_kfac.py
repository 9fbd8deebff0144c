"""K-FAC's factors against explicit Fisher matrices, and the optimizer wrapper in real runs."""

import copy
import itertools

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from gcp_mm.studies.kfac import (
    KFAC,
    capture_factors,
    damping_shares,
    inverse_factors,
    kfac_layers,
    weight_matrix,
)

CONFIG = 'configs/digits/resnet18_1xb64-5e-kfac_digits.py'


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
    kfac = KFAC(damping=0.1)
    kfac.update(factors)
    layer.zero_grad()
    losses().mean().backward()
    grad = matrix_gradient(layer).clone()
    share_a, share_g = damping_shares(a, g, 0.1)
    explicit = np.kron(
        a.numpy() + share_a.item() * np.eye(len(a)), g.numpy() + share_g.item() * np.eye(len(g))
    )
    expected = np.linalg.solve(explicit, grad.T.flatten().numpy())
    product = kfac.precondition(layer, 'layer')
    natural = matrix_gradient(layer)
    np.testing.assert_allclose(natural.T.flatten().numpy(), expected, rtol=1e-9)
    assert product.item() == pytest.approx((natural * grad).sum().item())


class Net(BaseModel):
    """Each kind of layer the factors meet in a classifier."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(4, 4, 3, groups=4)
        self.fc = nn.Linear(4, 3)
        self.double()

    def forward(self, inputs, targets, mode='loss'):
        x = self.grouped(F.relu(self.conv(inputs), inplace=True)).mean((2, 3))
        return dict(loss=F.cross_entropy(self.fc(x), targets))


def batch(size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return dict(
        inputs=torch.randn(size, 2, 5, 5, generator=generator).double(),
        targets=torch.randint(0, 3, (size,), generator=generator),
    )


def make(**options):
    torch.manual_seed(0)
    net = Net()
    cfg = dict(type='KFACOptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9), **options)
    return net, build_optim_wrapper(net, cfg)


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


def test_damping_is_shared_by_the_mean_eigenvalues():
    a, g = torch.diag(torch.tensor([6.0, 2, 1])), torch.diag(torch.tensor([0.5, 1.5]))
    pi = (3 / 1) ** 0.5
    for share, expected in zip(damping_shares(a, g, 0.01), (0.1 * pi, 0.1 / pi), strict=True):
        assert share.item() == pytest.approx(expected)
    inverse = inverse_factors(a, g, 0.01)[0].diagonal()
    assert inverse.tolist() == pytest.approx([1 / (x + 0.1 * pi) for x in (6, 2, 1)])
    assert [s.item() for s in damping_shares(a, 0 * g, 0.04)] == pytest.approx([0.2, 0.2])


def test_running_averages():
    kfac = KFAC(decay=0.9)
    for value in (1.0, 2.0, 4.0):
        kfac.update(dict(layer=(value * torch.eye(2), value * torch.eye(3))))
    for factor in kfac.state_dict()['layer']:
        torch.testing.assert_close(factor.diagonal(), torch.full((len(factor),), 1.39))
    again = KFAC(decay=0.9)
    again.load_state_dict(kfac.state_dict(), 'cpu')
    layers = [nn.Linear(2, 3, bias=False) for _ in range(2)]
    for layer, one in zip(layers, (kfac, again), strict=True):
        layer.weight.grad = torch.ones(3, 2)
        one.precondition(layer, 'layer')
    assert torch.equal(layers[0].weight.grad, layers[1].weight.grad)
    assert kfac.precondition(layers[0], 'unknown') is None


def test_factors_that_have_no_inverse_are_named():
    with pytest.raises(ValueError, match=r'layer: .* no inverse with damping=0.01'):
        KFAC().update(dict(layer=(torch.full((2, 2), torch.nan), torch.eye(2))))


@pytest.mark.parametrize(
    ('option', 'value'),
    [('damping', 0), ('decay', 1), ('interval', 0), ('interval', 2.0), ('kl_clip', 0)],
)
def test_options_out_of_range_are_named(option, value):
    with pytest.raises(ValueError, match=f'{option}: expected .*, got {value}'):
        make(**{option: value})


def reference_steps(net, data, steps, kl_clip, damping=0.05, lr=0.1):
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
                0.5 * old + 0.5 * new
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
    net, wrapper = make(damping=0.05, decay=0.5, interval=1, kl_clip=kl_clip)
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


def train_process(rank, port, path):
    """One of two processes, each with half of every batch."""
    import torch.distributed as dist
    from mmengine.model import MMDistributedDataParallel

    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    net, wrapper = make(interval=2)
    ddp = MMDistributedDataParallel(net, device_ids=None)
    for step in range(4):
        half = {key: value[3 * rank : 3 * rank + 3] for key, value in batch(seed=step).items()}
        ddp.train_step(half, wrapper)
    torch.save((net.state_dict(), wrapper.state_dict()['kfac']), f'{path}/{rank}.pth')
    dist.destroy_process_group()


def test_two_processes_step_as_one_with_both_halves(tmp_path):
    torch.multiprocessing.spawn(train_process, (29617, str(tmp_path)), nprocs=2)
    net, wrapper = make(interval=2)
    for step in range(4):
        net.train_step(batch(seed=step), wrapper)
    for rank in (0, 1):
        weights, factors = torch.load(tmp_path / f'{rank}.pth')
        for key, value in net.state_dict().items():
            torch.testing.assert_close(weights[key], value)
        for name, pair in wrapper.state_dict()['kfac'].items():
            for found, expected in zip(factors[name], pair, strict=True):
                torch.testing.assert_close(found, expected)


def test_config_trains_and_resumes(run_tool, short_cls, tmp_path):
    """The real config and command, on a narrow network."""
    options = [
        *('--work-dir', tmp_path, '--cfg-options'),
        *(option for option in short_cls if 'save_optimizer' not in option),
        *('model.backbone.stem_channels=8', 'model.backbone.base_channels=8'),
        *('model.head.in_channels=64', 'default_hooks.logger.interval=1'),
    ]
    command = ('tools/train.py', CONFIG)
    done = run_tool(*command, *options)
    assert done.returncode == 0, done.stdout
    state = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['optimizer']
    assert len(state['kfac']) == 21  # 20 convolutions and the classifier
    assert state['kfac']['head.fc'][0].shape == (65, 65)
    done = run_tool(
        *(*command, '--resume', *options, 'train_cfg.max_epochs=2', 'param_scheduler.end=2')
    )
    assert done.returncode == 0, done.stdout
    assert 'resumed epoch: 1' in done.stdout
