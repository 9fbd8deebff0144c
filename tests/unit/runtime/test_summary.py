"""The screen gets what a run is, and its warnings; the log file gets everything."""

import re
import uuid
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import nn

from gcp_mm.runtime.summary import QuietRunner, SummaryHook

IMAGES = 12


@MODELS.register_module()
class SummaryNet(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer, self.other = nn.Linear(1, 2), nn.Linear(2, 1)

    def forward(self, inputs, mode='loss', **_):
        loss = self.other(self.layer(torch.stack(inputs))).square().mean()
        return [loss] if mode == 'predict' else dict(loss=loss)


@DATASETS.register_module()
class SummaryDataset(BaseDataset):
    METAINFO = dict(classes=('a', 'b', 'c'))  # noqa: RUF012 - as mmengine has it

    def load_data_list(self):
        return [dict(inputs=torch.ones(1)) for _ in range(IMAGES)]


@METRICS.register_module()
class SummaryMetric(BaseMetric):
    default_prefix = 'summary'

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(zero=0.0)


@pytest.fixture
def runner(tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)  # which takes seconds

    def build(load_from=None, **changes):
        loader = dict(
            dataset=dict(type='SummaryDataset', data_root='pictures', serialize_data=False),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=4,
            num_workers=0,
        )
        cfg = dict(
            model=dict(type='SummaryNet'),
            train_dataloader=loader,
            val_dataloader=loader,
            test_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=2),
            val_cfg={},
            test_cfg={},
            val_evaluator=dict(type='SummaryMetric'),
            test_evaluator=dict(type='SummaryMetric'),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.25)),
            param_scheduler=dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3),
            default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
            work_dir=str(tmp_path / 'run'),
            experiment_name=uuid.uuid4().hex,
            load_from=load_from,
        )
        runner = QuietRunner.from_cfg(Config(cfg | changes))
        runner.register_hook(SummaryHook())
        return runner

    return build


def summary_of(out):
    """Texts of the summary on the screen, by name, of output that has one."""
    return dict(re.findall('(?m)^([a-z]+(?: [a-z]+)?) +(.+)$', out))


def test_training(runner, capsys):
    run = runner()
    run.logger.warning('of the checks')
    print('of the network')
    run.train()
    out = capsys.readouterr().out
    lines = out.splitlines()
    first = next(number for number, line in enumerate(lines) if 'Epoch(train)' in line)
    assert 'of the checks' in lines[0]
    assert lines[1] == 'of the network'
    assert len(lines[:first]) <= 15
    log = Path(run.log_dir, f'{run.timestamp}.log')
    text = log.read_text()
    for words in ('Config:', 'Hooks will be executed', 'System environment', 'of the checks'):
        assert words in text
        assert words == 'of the checks' or words not in out
    found = summary_of('\n'.join(lines[2:first]))
    assert found['network'].startswith('SummaryNet (Linear, Linear), 0.00 M parameters')
    assert found['weights'] == 'random'
    assert found['train'] == found['val'] == 'SummaryDataset in pictures/, 12 images of 3 classes'
    assert found['schedule'] == '2 epochs of 3 steps, batch 4; SGD, learning rate 0.25'
    assert found['device'].startswith('cpu, 1 process of ')
    assert 'operators of mmcv: ' in found['packages']
    assert found['work dir'] == run.work_dir
    assert found['log file'].startswith(str(log))
    assert all(f'{name}  ' in text for name in found)
    assert out.count('packages  ') == 1


def test_test(runner, capsys, tmp_path):
    torch.save(dict(state_dict=runner().model.state_dict()), tmp_path / 'a.pth')
    capsys.readouterr()
    runner(load_from=str(tmp_path / 'a.pth')).test()
    out = capsys.readouterr().out
    found = summary_of(out[: out.index('Epoch(test)')])
    assert found['weights'] == f'from {tmp_path}/a.pth'
    assert found['test'] == 'SummaryDataset in pictures/, 12 images of 3 classes'
    assert found.keys().isdisjoint(['train', 'val', 'schedule'])


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (dict(train_cfg=dict(by_epoch=False, max_iters=7)), '7 steps, batch 4; SGD'),
        (
            dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=1), accumulative_counts=3)),
            'batch 12 (4 x 1 process x 3 accumulated); SGD, learning rate 1',
        ),
        (
            dict(
                optim_wrapper=dict(
                    optimizer=dict(type='SGD', lr=0.5),
                    paramwise_cfg=dict(custom_keys=dict(other=dict(lr_mult=2))),
                )
            ),
            'SGD, learning rate 0.5 to 1',
        ),
    ],
)
def test_schedules(runner, capsys, changes, said):
    runner(**changes).train()
    assert said in summary_of(capsys.readouterr().out)['schedule']


def test_resumed(runner, capsys):
    class Stop(Hook):
        def after_train_epoch(self, runner):
            runner.save_checkpoint(runner.work_dir, 'a.pth', by_epoch=False)
            raise KeyboardInterrupt

    run = runner()
    run.register_hook(Stop())
    with pytest.raises(KeyboardInterrupt):
        run.train()
    capsys.readouterr()
    path = f'{run.work_dir}/a.pth'
    runner(load_from=path, resume=True).train()
    found = summary_of(capsys.readouterr().out)
    assert found['weights'].startswith(f'from {path}, after ')


def test_nothing_left_to_train(runner, capsys):
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
    runner(default_hooks=hooks).train()
    capsys.readouterr()
    runner(resume=True).train()
    out = capsys.readouterr().out
    assert 'nothing was trained: the run is at epoch 2 of 2 already' in out
    assert 'network' in summary_of(out)


def test_other_processes_are_silent(runner, capsys, monkeypatch):
    monkeypatch.setattr('mmengine.logging.logger._get_rank', lambda: 1)
    run = runner()
    run.logger.warning('of this process')
    run.test()
    assert not capsys.readouterr().out
