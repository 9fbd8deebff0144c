"""Batches and learning rates that do not fit are told, with advice that is right."""

import copy
import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from gcp_mm.checks import world_size
from gcp_mm.checks.schedule import check_batch
from tests.helpers.checks import findings, texts


def batch(images=32, **optim_wrapper):
    return Config(
        dict(
            train_dataloader=dict(batch_size=images),
            optim_wrapper=dict(optimizer=dict(lr=0.1), **optim_wrapper),
            auto_scale_lr=dict(base_batch_size=256),
        )
    )


def test_batch_of_other_gpus():
    (found,) = findings(check_batch, batch(), processes=8)
    assert found.text == 'lr=0.1 is for a batch of 256: 32 images x 8 processes'
    (text,) = texts('warning', check_batch, batch(), processes=1)
    assert text.startswith(
        'auto_scale_lr.base_batch_size says 256, and 32 images x 1 process are 32'
    )
    assert 'optim_wrapper.optimizer.lr=0.0125 and auto_scale_lr.base_batch_size=32' in text


def rate_of_a_run(cfg, processes):
    """The learning rate that mmengine trains with."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=cfg.optim_wrapper.optimizer.lr)
    runner = SimpleNamespace(
        _train_dataloader=cfg.train_dataloader,
        world_size=processes,
        logger=MMLogger.get_current_instance(),
        param_schedulers=None,
    )
    Runner.scale_lr(runner, OptimWrapper(optimizer), cfg.auto_scale_lr)
    return optimizer.param_groups[0]['lr']


@pytest.mark.parametrize('enable', [False, True])
@pytest.mark.parametrize('steps', [1, 2])
@pytest.mark.parametrize(('images', 'processes'), [(32, 8), (48, 1), (128, 6)])
def test_advice_is_right_when_it_is_followed(images, processes, steps, enable):
    """The run trains at the rate that is said, and each remedy ends in one that is right."""
    cfg = batch(images, accumulative_counts=steps)
    cfg.auto_scale_lr.enable = enable
    right = 0.1 * images * processes * steps / 256
    (found,) = findings(check_batch, cfg, processes=processes)
    rate = rate_of_a_run(cfg, processes)
    assert (found.status == 'ok') == (rate == pytest.approx(right))
    if found.status == 'ok':
        assert f'{rate:g}' in found.text
        return
    assert f'the linear rule gives lr={right:g}: ' in found.text
    if enable:
        assert f'trains at lr={rate:g};' in found.text
    advice = re.search(r'the linear rule gives lr=\S+: (.+?)(?:\. If|$)', found.text)[1]
    remedies = [advice] if enable else advice.split(', or ')
    assert remedies
    for remedy in remedies:
        new = copy.deepcopy(cfg)
        new.merge_from_dict(
            {
                key: float(x) if '.' in x else int(x)
                for key, x in re.findall(r'([\w.]+)=([\d.e+-]+)', remedy)
            }
        )
        if 'auto-scale-lr' in remedy:
            new.auto_scale_lr.enable = not enable  # the option given, or left out
        (after,) = findings(check_batch, new, processes=processes)
        assert after.status == 'ok', (remedy, after.text)
        assert rate_of_a_run(new, processes) == pytest.approx(right, rel=1e-5)


def test_rate_is_scaled_without_the_steps_that_are_accumulated():
    cfg = batch(accumulative_counts=8)
    assert findings(check_batch, cfg)[0].text.startswith('lr=0.1 is for a batch of 256: 32 ')
    cfg.auto_scale_lr.enable = True
    (text,) = texts('warning', check_batch, cfg)
    assert 'trains at lr=0.0125; for 32 images x 1 process x 8 accumulated' in text
    (text,) = texts('warning', check_batch, batch(256, accumulative_counts=2))
    assert '--auto-scale-lr' not in text  # with which nothing changes


def test_batch_without_a_rule():
    cfg = batch()
    cfg.pop('auto_scale_lr')
    (found,) = findings(check_batch, cfg, processes=1)
    assert found.status == 'skipped'
    assert 'set auto_scale_lr.base_batch_size' in found.text


def test_processes_are_those_of_the_launcher(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '4')
    monkeypatch.setenv('SLURM_NTASKS', '2')
    assert [world_size(launcher) for launcher in ('none', 'pytorch', 'slurm')] == [1, 4, 2]
    monkeypatch.delenv('WORLD_SIZE')
    assert world_size('pytorch') == 1
