"""DivergenceHook on small models: which step it leaves out, what it reports, what it refuses."""

import json
import math
import random
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import Runner
from torch import nn

from gcp_mm.runtime import DivergenceHook, divergence_hook
from tests.helpers.equality import assert_equal


class Norm(BaseModel):
    """The norm of the scaled inputs: of zeros it is finite, and its gradient is NaN."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3, bias=False)
        self.register_buffer('count', torch.zeros(()))

    def forward(self, inputs, mode='loss'):
        self.count += 1
        if (inputs == 7).any():
            raise ValueError('seven')
        return dict(loss=self.layer(inputs.float()).square().sum().sqrt(), other=inputs.sum())


def run_norm(work_dir, batches, hook, wrapper=None, **options):
    """Train on batches of three equal numbers; returns the model and its weights after each."""
    model, weights, sgd = Norm(), [], dict(type='SGD', lr=0.1)
    nn.init.eye_(model.layer.weight)

    class Watch(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            weights.append(model.layer.weight.detach().clone())

    runner = Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=1,
            dataset=[dict(inputs=torch.full((3,), float(value))) for value in batches],
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=wrapper(model) if wrapper else dict(optimizer=sgd, **options),
        custom_hooks=[hook, Watch()],
        experiment_name=work_dir.name,
    )
    runner.train()
    return model, weights


def test_a_gradient_alone(tmp_path):
    model, weights = run_norm(tmp_path, [1.0, 0.0, 2.0], DivergenceHook('skip'))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert model.count == 2  # of the step that was left out, and of the search, nothing is kept
    report = json.loads((tmp_path / 'divergence/iter_1.json').read_text())
    (process,) = report['processes']
    assert report['cause'] == 'a gradient'
    assert process['module'] is None
    assert process['gradients'] == ['layer.weight']


def test_gradient_accumulation_reports_the_batch_at_fault(tmp_path):
    """And not the one of the update."""
    hook = DivergenceHook('skip')
    _, weights = run_norm(tmp_path, [1.0, 2, 0, 3, 1, 2], hook, accumulative_counts=2)
    assert [path.name for path in tmp_path.glob('divergence/*')] == ['iter_2.json']
    assert all(weight.isfinite().all() for weight in weights)
    changed = [not torch.equal(a, b) for a, b in pairwise(weights)]
    assert changed == [True, False, True, False, True]


def test_skip_stops_after_so_many_in_a_row(tmp_path):
    with pytest.raises(FloatingPointError, match=r'iteration 3: .* 1 steps in a row were left out'):
        run_norm(tmp_path, [0.0, 1, 0, 0, 1], DivergenceHook('skip', max_skips=1))
    found = sorted(path.name for path in tmp_path.glob('divergence/*'))
    assert found == ['iter_0.json', 'iter_2.json', 'iter_3.json']


def test_another_error_is_no_divergence(tmp_path):
    with pytest.raises(ValueError, match='seven'):
        run_norm(tmp_path, [1.0, 7.0], DivergenceHook('skip'))
    assert not (tmp_path / 'divergence').exists()


@pytest.fixture
def amp(monkeypatch):
    """Makes a wrapper whose loss scaler works on a CPU."""
    if not hasattr(torch.amp, 'GradScaler'):
        pytest.skip('this PyTorch has no loss scaler for a CPU')
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)

    def build(scale):
        def wrapper(model):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            wrapper = AmpOptimWrapper(optimizer=optimizer)
            wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)
            return wrapper

        return wrapper

    return build


def test_a_loss_scale_that_settles_is_no_divergence(tmp_path, amp):
    batches = [1000.0] * 12
    _, weights = run_norm(tmp_path, batches, DivergenceHook(), amp(2.0**125))
    same = [torch.equal(weight, torch.eye(3)) for weight in weights]
    assert same[0]  # it was infinite at first
    assert not same[-1]
    assert not (tmp_path / 'divergence').exists()


def test_a_loss_scale_that_never_settles_is_divergence(tmp_path, amp, monkeypatch):
    monkeypatch.setattr(divergence_hook, 'SETTLING', 4)
    with pytest.raises(FloatingPointError, match='iteration 8: a gradient is not finite'):
        run_norm(tmp_path, [1.0, 0, 0, 2, 0, 0, 0, 0, 0], DivergenceHook(), amp(2.0**16))


def test_a_loss_that_is_not_finite_is_divergence_with_a_loss_scaler(tmp_path, amp):
    with pytest.raises(FloatingPointError, match=r'iteration 1: the loss is not finite.*layer'):
        run_norm(tmp_path, [1.0, math.inf], DivergenceHook(), amp(2.0**16))


def test_flags():
    weight = nn.Parameter(torch.full((3,), 3e38))
    loss = torch.tensor(3e38)
    assert divergence_hook.not_finite(loss, [weight]).tolist() == [0, 0]
    weight.grad = torch.full((3,), -3e38)  # large, and so is its sum; finite
    wide = nn.Parameter(torch.ones(2, dtype=torch.float64))
    wide.grad = torch.tensor([1e300, 0], dtype=torch.float64)
    assert divergence_hook.not_finite(loss, [weight, wide]).tolist() == [0, 0]
    for value in (math.nan, math.inf, -math.inf):
        weight.grad[1] = value
        assert divergence_hook.not_finite(loss, [weight, wide]).tolist() == [0, 1]
        assert divergence_hook.not_finite(loss * value, [wide]).tolist() == [1, 0]


def test_the_search_draws_what_the_step_drew():
    """And leaves the random generators as they were."""

    class Draws(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.drawn = nn.Linear(1, 1), []

        def forward(self, inputs, mode):
            self.drawn.append((torch.rand(()).item(), np.random.rand(), random.random()))
            return dict(loss=self.layer(inputs).sum() * math.nan)

    model = Draws()
    with divergence_hook._watched_forward(model) as forward:
        model.forward(torch.ones(1, 1), mode='loss')
    model(torch.ones(1, 1), mode='loss')
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert divergence_hook.first_not_finite(model, forward)
    assert model.drawn[0] == model.drawn[2] != model.drawn[1]
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert_equal(before, after)


def test_mmengine_calls_what_the_hook_replaces():
    """`train_step` runs `forward` by mode='loss', then `backward`, then `step`, in this order."""
    calls = []

    class Watched(OptimWrapper):
        def backward(self, loss, **kwargs):
            calls.append('backward')
            super().backward(loss, **kwargs)

        def step(self, **kwargs):
            calls.append('step')

    model = Norm()
    forward = model.forward
    model.forward = lambda *args, **kwargs: calls.append(kwargs['mode']) or forward(*args, **kwargs)
    wrapper = Watched(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    model.train_step(dict(inputs=torch.ones(1, 3)), optim_wrapper=wrapper)
    assert calls == ['loss', 'backward', 'step']


def test_several_optimizers_are_refused():
    class Two:
        optim_wrapper = object()

    with pytest.raises(TypeError, match='OptimWrapper, of one optimizer, not object'):
        DivergenceHook().before_train(Two())


@pytest.mark.parametrize(
    ('options', 'error', 'words'),
    [
        (dict(policy='go'), ValueError, "policy: .*'skip'.*'go'"),
        (dict(max_skips=0), ValueError, 'max_skips: .* 1, got 0'),
        (dict(max_skips=1.5), TypeError, r'max_skips: .*got 1\.5'),
    ],
)
def test_wrong_arguments(options, error, words):
    with pytest.raises(error, match=words):
        DivergenceHook(**options)


def test_a_replaced_train_step_stays(tmp_path):
    """As torch.compile leaves one in the model."""
    model, calls = Norm(), []
    step = model.train_step

    def train_step(*args, **kwargs):
        calls.append(1)
        return step(*args, **kwargs)

    model.train_step = train_step
    hook = DivergenceHook()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), 1))
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper)
    for _ in range(2):
        hook.before_train(runner)
    assert model.train_step is not train_step
    hook.after_train(runner)
    assert model.train_step is train_step


def test_nan_made_between_modules():
    """The module that raises is named, though no output was not finite."""

    class Log(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Refuses()

        def forward(self, inputs, mode):
            return self.layer(inputs.log())

    class Refuses(nn.Module):
        def forward(self, x):
            raise ValueError('NaN')

    inputs = torch.tensor([-1.0])
    forward = SimpleNamespace(args=(inputs,), kwargs=dict(mode='loss'), rewind=lambda: None)
    found = divergence_hook.first_not_finite(Log(), forward)
    assert (found['name'], found['input_finite']) == ('layer', False)
