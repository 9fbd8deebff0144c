"""What a run loads is of its network, and a resumed one goes on where its schedule was."""

import copy
import re
import uuid
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

from gcp_mm.runtime.resume import LoadingHook

IMAGES, EPOCHS = 24, 6
ITERATIONS = dict(convert_to_iter_based=True)
POLY = dict(type='PolyLR', power=1, **ITERATIONS)
STEPS = dict(type='MultiStepLR', milestones=[2, 4])
PLATEAU = dict(type='ReduceOnPlateauLR', monitor='loss')
SGD = dict(type='SGD', lr=0.1, momentum=0.9)
GROUPS = dict(custom_keys=dict(other=dict(lr_mult=0.5)))
MOVED = 'the checkpoint was saved at iteration '
OTHERS = 'than those of the checkpoint: the run goes on with its own, now lr '


@pytest.fixture
def said(monkeypatch):
    """What runs warn of."""
    texts = []
    monkeypatch.setattr('mmengine.logging.MMLogger.warning', lambda _, text: texts.append(text))
    return texts


class Network(BaseModel):
    def __init__(self, width=1):
        super().__init__()
        self.layer = nn.Linear(1, width)
        self.other = nn.Linear(width, 1)

    def forward(self, inputs, mode='loss'):
        return dict(loss=self.other(self.layer(torch.stack(inputs))).square().mean())

    def train_step(self, data, optim_wrapper):
        if not isinstance(optim_wrapper, OptimWrapperDict):
            return super().train_step(data, optim_wrapper)
        for wrapper in optim_wrapper.values():
            wrapper.update_params(self(**data)['loss'])
        return {}


class Watch(Hook):
    """Learning rate and momentum of each parameter group, in each iteration of an epoch."""

    def __init__(self):
        self.values = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.runner = runner
        wrappers = getattr(runner.optim_wrapper, 'optim_wrappers', {'': runner.optim_wrapper})
        self.values.setdefault(runner.epoch + 1, []).append(
            [
                [group['lr'], group.get('momentum', 0), *group.get('betas', ())]
                for wrapper in wrappers.values()
                for group in wrapper.optimizer.param_groups
            ]
        )


def train(folder, *schedulers, batch=4, resume=None, hook=None, **changes):
    """Train a tiny network for some epochs; returns the Watch."""
    watch = Watch()
    options = dict(
        model=Network(),
        train_cfg=dict(by_epoch=True, max_epochs=EPOCHS),
        optim_wrapper=dict(optimizer=dict(SGD)),
        param_scheduler=list(schedulers) or None,
        load_from=resume and str(folder / resume),
        custom_hooks=[],
    )
    options |= changes
    options['custom_hooks'] = [watch, LoadingHook(), *options['custom_hooks']]
    runner = Runner(
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.ones(1)) for _ in range(IMAGES)],
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=batch,
            num_workers=0,
        ),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1) | (hook or {})),
        resume=resume is not None,
        experiment_name=uuid.uuid4().hex,
        log_level='ERROR',
        **copy.copy(options),
    )
    runner.train()
    return watch


def assert_same(resumed, straight, first=3):
    """From epoch `first` on, a resumed run has the values of an uninterrupted one."""
    assert sorted(resumed.values) == list(range(first, max(straight.values) + 1))
    for epoch, values in resumed.values.items():
        right = torch.tensor(straight.values[epoch], dtype=torch.float64)
        found = torch.tensor(values, dtype=torch.float64)
        torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)
    hub, end = resumed.runner.message_hub, straight.runner.max_iters
    assert resumed.runner.iter == hub.get_info('max_iters') == hub.get_info('iter') + 1 == end


SCHEDULES = [
    [POLY],
    [dict(type='PolyLR', power=1, by_epoch=False)],  # to the end, as ShuffleNetV2's
    [
        dict(type='LinearLR', start_factor=0.1, end=2, **ITERATIONS),
        dict(type='MultiStepLR', milestones=[3, 5], **ITERATIONS),
    ],
    [dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=8), STEPS],
    [POLY, dict(type='CosineAnnealingMomentum', eta_min=0.5, **ITERATIONS)],
]
MOMENTUM = [POLY, dict(type='LinearMomentum', start_factor=0.5, end=4, **ITERATIONS)]
WRAPPERS = [
    dict(optimizer=dict(SGD), paramwise_cfg=GROUPS),
    dict(optimizer=dict(type='AdamW', lr=0.1)),
    dict(optimizer=dict(SGD), accumulative_counts=5),  # the rest of an accumulation, too
]
LOWER = dict(optimizer=dict(SGD, lr=0.05))
SCALED = dict(auto_scale_lr=dict(enable=True, base_batch_size=4))


@pytest.mark.parametrize(
    ('before', 'both', 'after', 'change'),
    [
        *((each, {}, each, dict(batch=batch)) for each in SCHEDULES for batch in (3, 8)),
        *((MOMENTUM, dict(optim_wrapper=each), MOMENTUM, dict(batch=8)) for each in WRAPPERS),
        ([STEPS], SCALED, [STEPS], dict(batch=8)),
        ([POLY], dict(custom_hooks=[dict(type='EMAHook', momentum=0.25)]), [POLY], dict(batch=8)),
        # Without them mmengine multiplies the first rate on, or begins the schedule anew.
        ([POLY], dict(hook=dict(save_optimizer=False)), [POLY], {}),
        ([POLY], dict(hook=dict(save_param_scheduler=False)), [POLY], {}),
        # An epoch that was begun begins again.
        ([POLY], dict(hook=dict(by_epoch=False, interval=8)), [POLY], dict(resume='iter_8.pth')),
        # The config of the resumed run counts, not what the checkpoint says of the old one.
        ([POLY], {}, [POLY], dict(train_cfg=dict(by_epoch=True, max_epochs=9))),
        ([POLY], {}, [], {}),
        ([STEPS], {}, [POLY], {}),
        ([], {}, [POLY], {}),
        ([POLY], {}, [POLY], dict(optim_wrapper=LOWER)),
        ([], {}, [], dict(optim_wrapper=LOWER)),
        ([POLY], {}, [POLY], dict(optim_wrapper=dict(optimizer=dict(SGD, momentum=0.5)))),
    ],
)
def test_a_resumed_run_goes_on_as_an_uninterrupted_one(tmp_path, before, both, after, change):
    train(tmp_path, *before, **both)
    options = dict(resume='epoch_2.pth') | both | change
    resumed = train(tmp_path, *after, **options)
    del options['resume']
    straight = train(tmp_path / 'straight', *after, **options)
    assert_same(resumed, straight, first=2 if 'iter_8.pth' in change.values() else 3)


def test_closed_form(tmp_path):
    """Half of the iterations: a rate of 0.1 (1 - t / 17) in iteration t of 18."""
    train(tmp_path, POLY)
    found = train(tmp_path, POLY, batch=8, resume='epoch_2.pth').values
    rates = [group[0][0] for epoch in sorted(found) for group in found[epoch]]
    assert rates == pytest.approx([0.1 * (1 - t / 17) for t in range(6, 18)], abs=1e-12)


def two_optimizers():
    network = Network()
    wrappers = {
        name: OptimWrapper(torch.optim.SGD(getattr(network, name).parameters(), lr=rate))
        for name, rate in (('layer', 0.1), ('other', 0.2))
    }
    return dict(model=network, optim_wrapper=OptimWrapperDict(**wrappers))


@pytest.mark.parametrize('schedulers', [[POLY], dict(layer=[POLY], other=[STEPS])])
def test_several_optimizers(tmp_path, schedulers):
    def run(folder=tmp_path, **options):
        return train(folder, param_scheduler=schedulers, **two_optimizers(), **options)

    run(hook=dict(by_epoch=False, interval=8))
    straight = run()
    assert_same(run(resume='epoch_2.pth'), straight)
    assert_same(run(resume='iter_8.pth'), straight, first=2)
    assert_same(run(batch=8, resume='epoch_2.pth'), run(tmp_path / 'straight', batch=8))


def test_training_by_iterations(tmp_path, monkeypatch):
    # mmengine waits 2 s whenever it begins the data again
    monkeypatch.setattr('mmengine.runner.loops.time', SimpleNamespace(sleep=lambda seconds: None))
    options = dict(train_cfg=dict(by_epoch=False, max_iters=20))
    schedule = dict(type='PolyLR', by_epoch=False)
    train(tmp_path, schedule, hook=dict(by_epoch=False, interval=8), **options)
    resumed = train(tmp_path, schedule, batch=8, resume='iter_8.pth', **options)
    straight = train(tmp_path / 'x', schedule, batch=8, **options)
    rates = [[value for epoch in w.values.values() for value in epoch] for w in (resumed, straight)]
    assert rates[0] == rates[1][8:]


@pytest.mark.parametrize(
    ('change', 'place'),
    [
        (dict(batch=8, resume='epoch_2.pth'), '12, after 2 .* 6 of 18, with epochs of 3'),
        (dict(resume='iter_8.pth'), '8, after 1 .* 6 of 36, with epochs of 6'),
    ],
)
def test_another_iteration_is_told(tmp_path, said, change, place):
    train(tmp_path, STEPS)
    train(tmp_path, STEPS, hook=dict(by_epoch=False, interval=8))
    train(tmp_path, STEPS, **change)
    (text,) = [text for text in said if MOVED in text]
    assert re.search(place, text)


@pytest.mark.parametrize(
    ('scheduler', 'options', 'rate'),
    [
        (dict(STEPS, gamma=0.5), {}, '0.05'),
        (dict(STEPS, milestones=[2, 5]), {}, '0.01'),  # which the rate does not tell yet
        (STEPS, dict(optim_wrapper=LOWER), '0.005'),
        (STEPS, {}, None),
    ],
)
def test_another_schedule_is_told(tmp_path, said, scheduler, options, rate):
    train(tmp_path, STEPS)
    train(tmp_path, scheduler, resume='epoch_2.pth', **options)
    found = [text.split(OTHERS)[1] for text in said if OTHERS in text]
    assert found == ([rate] if rate else [])


def test_metrics_are_followed_from_the_middle_of_an_epoch(tmp_path, said):
    train(tmp_path, PLATEAU, hook=dict(by_epoch=False, interval=8))
    resumed = train(tmp_path, PLATEAU, resume='iter_8.pth')
    assert list(resumed.values) == [*range(2, EPOCHS + 1)]
    assert any(MOVED in text for text in said)


def test_an_optimizer_without_its_state_is_told(tmp_path, said):
    train(tmp_path, STEPS, hook=dict(save_optimizer=False))
    train(tmp_path, STEPS, resume='epoch_2.pth')
    assert any('no state of the optimizer' in text for text in said)


@pytest.mark.parametrize(
    'schedulers',
    [
        [POLY, PLATEAU],
        [STEPS, dict(type='LinearLR', start_factor=0.1, end=9, by_epoch=False)],
        [STEPS, dict(type='CosineAnnealingLR', T_max=36, by_epoch=False)],
    ],
)
def test_same_settings_go_on_bit_for_bit(tmp_path, said, schedulers):
    saved = train(tmp_path, *schedulers)
    resumed = train(tmp_path, *schedulers, resume='epoch_2.pth')
    assert resumed.values == {epoch: saved.values[epoch] for epoch in range(3, EPOCHS + 1)}
    assert not [text for text in said if MOVED in text or OTHERS in text]


def test_config_in_a_checkpoint_is_not_executed(tmp_path):
    train(tmp_path, STEPS)
    content = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    sign = tmp_path / 'sign'
    content['meta']['config'] = f'from pathlib import Path\nPath({str(sign)!r}).touch()\n'
    torch.save(content, tmp_path / 'a.pth')
    train(tmp_path, STEPS, resume='a.pth')
    assert not sign.exists()


def test_scheduler_of_past_metrics_is_refused(tmp_path):
    train(tmp_path, POLY, PLATEAU)
    with pytest.raises(ValueError, match=r'ReduceOnPlateauLR.*iteration 12 after 2.* has 3$'):
        train(tmp_path, POLY, PLATEAU, batch=8, resume='epoch_2.pth')


def test_checkpoint_of_another_network_is_refused(tmp_path):
    path = tmp_path / 'a.pth'
    for content in (
        dict(state_dict={'backbone.weight': torch.zeros(1)}),
        {'layer.weight': torch.zeros(5, 1)},  # of another shape
        {},
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=f"'{path}' holds none of the 4 .* Network"):
            train(tmp_path / 'run', load_from=str(path))


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_checkpoint_that_fits_in_part_is_told(tmp_path, prefix, said):
    state = {prefix + name: w for name, w in Network(width=2).state_dict().items()}
    torch.save(state, tmp_path / 'a.pth')
    train(tmp_path / 'run', load_from=str(tmp_path / 'a.pth'))
    (text,) = [text for text in said if 'keep their initial values' in text]
    assert text.startswith('1 of 4 tensors of Network')  # other.bias
