"""Runs on digits that stop being finite, and what DivergenceHook makes of each."""

import json

import pytest
import torch
from mmengine.config import Config

from gcp_mm.runtime import DivergenceHook
from tests.helpers.equality import assert_equal, load
from tests.helpers.poison import RecordStepsHook
from tests.helpers.runs import CLS, DRAWING, ROOT, train_here

RUN = """
_base_ = {base!r}
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
    path.write_text(RUN.format(base=str(DRAWING), hooks=hooks, pipeline=pipeline))
    return path


@pytest.fixture(scope='module')
def train(short_cls, tmp_path_factory):
    """Train in this process with a hook; returns the work dir, and the record of the steps."""

    def train(hook=None, poison=(), weights=(), hooks='', **options):
        work_dir = tmp_path_factory.mktemp('run')
        config = write_config(work_dir / 'config.py', hooks, poison)
        short = (*short_cls, 'train_dataloader.batch_size=4')
        options |= dict(val_cfg=None, val_dataloader=None, val_evaluator=None)
        record = RecordStepsHook(weights)

        def run(runner):
            if hook:
                runner.register_hook(hook)
            runner.register_hook(record)
            record.runner = runner
            runner.train()

        try:
            train_here(config, work_dir, *short, run=run, **options)
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
    assert 'train.py: error: iteration ' in done.stdout
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
