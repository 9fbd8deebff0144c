"""Runs on digits that stop being finite, and what DivergenceHook makes of each."""

import json
import math
import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import Runner
from torch import nn

from gcp_mm.runtime import DivergenceHook, divergence_hook
from gcp_mm.runtime.launch import launch
from tests.helpers.equality import assert_equal, load
from tests.helpers.poison import RecordStepsHook
from tests.helpers.run_state import DumpRunStateHook
from tests.helpers.runs import CLS, ROOT

RUN = """
_base_ = {base!r}
custom_imports = dict(imports=['gcp_mm', 'tests.helpers.run_state', 'tests.helpers.poison'])
model = dict(
    backbone=dict(drop_path_rate=0.3),
    head=dict(loss=dict(use_soft=True)),
    train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)),
)
train_dataloader = dict(dataset=dict(pipeline={pipeline}))
default_hooks = dict({hooks})
"""
DUMP = "dump=dict(type='DumpRunStateHook')"
STEPS = 4  # of four images


def write_config(path, hooks='', poison=()):
    base = Config.fromfile(ROOT / CLS)
    pipeline = base.train_dataloader.dataset.pipeline
    pipeline = [*pipeline[:-1], dict(type='PoisonImage', files=list(poison)), pipeline[-1]]
    pipeline = [dict(step) for step in pipeline]
    path.write_text(RUN.format(base=str(ROOT / CLS), hooks=hooks, pipeline=pipeline))
    return path


@pytest.fixture(scope='module')
def train(short_cls, tmp_path_factory):
    """Train in this process with a hook; returns the work dir, and the record of the steps."""

    def train(hook=None, poison=(), weights=(), hooks='', **options):
        work_dir = tmp_path_factory.mktemp('run')
        cfg = Config.fromfile(write_config(work_dir / 'config.py', hooks, poison))
        pairs = [option.split('=', 1) for option in short_cls]
        cfg.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in pairs})
        cfg.merge_from_dict(
            {
                'work_dir': str(work_dir),
                'launcher': 'none',
                'experiment_name': work_dir.name,
                'train_dataloader.batch_size': 4,
                'val_cfg': None,
                'val_dataloader': None,
                'val_evaluator': None,
                **options,
            }
        )
        cfg.train_dataloader.persistent_workers = False
        cfg.train_dataloader.collate_fn = dict(type='default_collate')
        record = RecordStepsHook(weights)

        def run(runner):
            if hook:
                runner.register_hook(hook)
            runner.register_hook(record)
            record.runner = runner
            runner.train()

        try:
            launch(cfg, run)
        except FloatingPointError as error:
            record.error = str(error)
        else:
            record.error = None
        return work_dir, record

    return train


@pytest.fixture(scope='module')
def files(train):
    """Of each batch: the seed makes every run see them so."""
    return train()[1].files


def read_report(work_dir, iteration):
    return json.loads((work_dir / f'divergence/iter_{iteration}.json').read_text())


def reports(work_dir):
    return sorted(path.name for path in work_dir.glob('divergence/*.json'))


def test_a_finite_run_is_bit_identical(train):
    """The policy shows in none."""
    without, _ = train(hooks=DUMP)
    work_dir, record = train(DivergenceHook('skip'), hooks=DUMP)
    assert_equal(load(without), load(work_dir))
    assert not (work_dir / 'divergence').exists()
    model = record.runner.model
    assert 'train_step' not in vars(model)
    assert 'forward' not in vars(model)


def test_skip_leaves_out_the_step_of_a_spoilt_image(train, files):
    spoilt = files[1][2]
    work_dir, record = train(DivergenceHook('skip'), poison=[spoilt], **without_mixing())
    assert record.error is None
    assert record.files == files
    assert len(record.after) == STEPS
    for i in range(STEPS - 1):  # the last learning rate is 0
        same = torch.equal(
            *(when[i]['model']['backbone.conv1.weight'] for when in (record.before, record.after))
        )
        assert same == (i == 1)
    assert record.before[1]['momentum']
    assert_equal(record.before[1], record.after[1])
    assert all(value.isfinite().all() for value in record.after[-1]['model'].values())

    assert reports(work_dir) == ['iter_1.json']
    report = read_report(work_dir, 1)
    assert (report['iter'], report['cause']) == (1, 'the loss')
    (process,) = report['processes']
    assert 'the features hold NaN or infinity' in process['error']
    assert process['module'] == dict(
        name='backbone.conv1', type='Conv2d', input_finite=False, images=[2]
    )
    assert process['files'] == files[1]
    assert process['parameters'] == []
    assert process['gradients']  # the NaN loss reaches every weight
    (log,) = work_dir.glob('*/*.log')
    assert 'first in backbone.conv1); report: ' in log.read_text()


def without_mixing():
    return {'model.train_cfg.augments': None, 'model.head.loss.use_soft': False}


def test_skip_stops_after_so_many_in_a_row(train, files):
    poison = [files[0][0], files[2][0], files[3][1]]
    work_dir, record = train(DivergenceHook('skip', max_skips=1), poison, **without_mixing())
    assert '1 steps in a row were left out' in record.error
    assert reports(work_dir) == ['iter_0.json', 'iter_2.json', 'iter_3.json']
    assert_equal(record.before[3]['model'], dict(record.runner.model.state_dict()))


def test_stop_names_the_weight_and_leaves_the_rest(train, files):
    weights = [(2, 'head.fc.weight', float('inf'))]
    work_dir, record = train(DivergenceHook(), weights=weights)
    path = work_dir / 'divergence/iter_2.json'
    assert 'iteration 2: the loss is not finite' in record.error
    assert f'report: {path}' in record.error
    assert 'first in head.fc' in record.error
    assert 'train_step' not in vars(record.runner.model)
    assert_equal(record.before[2]['model'], dict(record.runner.model.state_dict()))
    (process,) = read_report(work_dir, 2)['processes']
    assert process['files'] == files[2]
    assert process['parameters'] == ['head.fc.weight']
    assert (process['module']['name'], process['module']['type']) == ('head.fc', 'Linear')
    assert process['module']['input_finite']


def test_the_search_leaves_no_trace(train, files, monkeypatch):
    """Neither in the random generators, which mixing and stochastic depth use, nor elsewhere."""
    monkeypatch.setattr(DumpRunStateHook, 'after_train_iter', Hook.after_train_iter)
    searched, _ = train(DivergenceHook('skip'), [files[1][0]], hooks=DUMP)
    assert read_report(searched, 1)['processes'][0]['module']['images']
    monkeypatch.setattr(
        divergence_hook,
        'first_not_finite',
        lambda model, forward: dict(name='', type='', input_finite=True, images=[]),
    )
    assert_equal(load(searched), load(train(DivergenceHook('skip'), [files[1][0]], hooks=DUMP)[0]))


def test_the_search_draws_what_the_step_drew():
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
    torch.rand(3), np.random.rand(3), random.random()
    assert divergence_hook.first_not_finite(model, forward)
    assert model.drawn[0] == model.drawn[1]


def test_a_huge_learning_rate(train):
    """Weights explode, features overflow, and the neck's own error ends as a report."""
    work_dir, record = train(DivergenceHook(), **{'optim_wrapper.optimizer.lr': 1e25})
    assert 'is not finite' in record.error
    (name,) = reports(work_dir)
    report = read_report(work_dir, int(name[5:-5]))
    assert 1 <= report['iter'] < STEPS
    (process,) = report['processes']
    assert process['module']


@pytest.mark.slow
def test_two_processes_act_alike(run_tool, short_cls, tmp_path, files):
    """One of them alone gets the spoilt image, whose neck raises."""
    hooks = "hook=dict(type='DivergenceHook', policy='skip'), "
    hooks += "steps=dict(type='RecordStepsHook', dump=True)"
    done = train_in_two(run_tool, short_cls, tmp_path, hooks, files[1][2])
    assert done.returncode == 0, done.stdout
    steps = [torch.load(tmp_path / f'steps{rank}.pth') for rank in (0, 1)]
    ((rank, iteration),) = (
        (rank, i)
        for rank in (0, 1)
        for i, names in enumerate(steps[rank]['files'])
        if files[1][2] in names
    )
    assert reports(tmp_path) == [f'iter_{iteration}.json']
    processes = read_report(tmp_path, iteration)['processes']
    assert [process['files'] for process in processes] == [s['files'][iteration] for s in steps]
    assert processes[rank]['module']['name'] == 'backbone.conv1'
    assert processes[1 - rank]['module'] is None
    assert processes[1 - rank]['error'] is None
    for step in steps:
        assert_equal(step['before'][iteration], step['after'][iteration])
    weights = [dict(step['after'][-1]['model']) for step in steps]
    for name in weights[0]:
        assert weights[0][name].isfinite().all()
        if 'running' not in name:  # batch statistics are each process's own
            assert torch.equal(weights[0][name], weights[1][name])


@pytest.mark.slow
def test_two_processes_stop_together(run_tool, short_cls, tmp_path, files):
    hooks = "hook=dict(type='DivergenceHook')"
    done = train_in_two(run_tool, short_cls, tmp_path, hooks, files[1][2])
    assert done.returncode != 0
    assert 'FloatingPointError: iteration ' in done.stdout
    assert 'Timeout' not in done.stdout
    (name,) = reports(tmp_path)
    assert f'report: {tmp_path}/divergence/{name}' in done.stdout


def train_in_two(run_tool, short_cls, work_dir, hooks, poison):
    config = write_config(work_dir / 'config.py', hooks, [poison])
    options = [f'{key}={value}' for key, value in without_mixing().items()]
    return run_tool(
        *('tools/dist_train.sh', config, 2, '--work-dir', work_dir, '--cfg-options', *short_cls),
        *(*options, 'train_dataloader.batch_size=4', 'param_scheduler.end=2'),
        timeout=300,
    )


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
    report = read_report(tmp_path, 1)
    (process,) = report['processes']
    assert report['cause'] == 'a gradient'
    assert process['module'] is None
    assert process['gradients'] == ['layer.weight']


def test_gradient_accumulation_reports_the_batch_at_fault(tmp_path):
    """And not the one of the update."""
    hook = DivergenceHook('skip')
    _, weights = run_norm(tmp_path, [1.0, 2, 0, 3, 1, 2], hook, accumulative_counts=2)
    assert reports(tmp_path) == ['iter_2.json']
    assert all(weight.isfinite().all() for weight in weights)
    changed = [not torch.equal(a, b) for a, b in pairwise(weights)]
    assert changed == [True, False, True, False, True]


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
