"""Curves from logs, and learning rates from configs."""

import pytest
from mmengine.config import Config

from gcp_mm.checks import learning_rates
from gcp_mm.studies.curves import first_reaching, training_curve, validation_curve
from tests.helpers.run_logs import validations, write_log
from tests.helpers.runs import ROOT

IMAGENET = ROOT / 'configs/imagenet/resnet18-gcp_8xb32-lradju_in1k.py'


def test_resumed_run_replaces_what_it_repeats(tmp_path):
    write_log(tmp_path, '20260101_000000', {'loss': 1.0, 'step': 10}, *validations(50.0, 60.0))
    write_log(tmp_path, '20260102_000000', *validations(70.0, first=2))
    assert validation_curve(tmp_path) == {1: 50.0, 2: 70.0}


def test_run_started_over_replaces_all(tmp_path):
    write_log(tmp_path, '20260101_000000', *validations(50.0, 60.0, 70.0))
    write_log(tmp_path, '20260102_000000', {'loss': 1.0, 'step': 10})  # stopped early
    write_log(tmp_path, '20260103_000000', *validations(55.0))
    assert validation_curve(tmp_path) == {1: 55.0}


def test_training_accuracy_is_the_mean_of_an_epoch(tmp_path):
    lines = [
        {'accuracy_top-1': a, 'epoch': e, 'step': s}
        for a, e, s in ((10.0, 1, 5), (30.0, 1, 10), (50.0, 2, 15), (60.0, 2, 20))
    ]
    write_log(tmp_path, '20260101_000000', *lines, *validations(20.0))
    write_log(tmp_path, '20260102_000000', {'accuracy_top-1': 70.0, 'epoch': 2, 'step': 15})
    assert training_curve(tmp_path) == {1: 20.0, 2: 70.0}
    assert training_curve(tmp_path, 'accuracy/top5') == {}
    assert training_curve(tmp_path, 'coco/bbox_mAP') == {}


@pytest.mark.parametrize('line', [1, {}, {'step': 'x'}, {'step': 1, 'accuracy/top1': None}])
def test_damaged_log_is_named(tmp_path, line):
    write_log(tmp_path, '20260101_000000', *validations(50.0), line)
    with pytest.raises(ValueError, match=r"scalars\.json'"):
        validation_curve(tmp_path)


def test_run_without_the_metric_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='work dir of a training'):
        validation_curve(tmp_path)
    write_log(tmp_path, '20260101_000000', {'coco/bbox_mAP': 0.5, 'step': 1})
    with pytest.raises(ValueError, match=r"metric 'accuracy/top1'"):
        validation_curve(tmp_path)


@pytest.mark.parametrize(('target', 'epoch'), [(50, 1), (70, 3), (80, None)])
def test_first_epoch_that_reaches_a_target(target, epoch):
    assert first_reaching({1: 50.0, 2: 60.0, 3: 70.0, 4: 65.0}, target) == epoch


def schedule(*schedulers, **kwargs):
    optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.4))
    return Config(dict(optim_wrapper=optim_wrapper, param_scheduler=list(schedulers), **kwargs))


def test_learning_rates_of_epochs():
    epochs, rates = learning_rates(Config.fromfile(IMAGENET), images=1)
    assert epochs == list(range(1, 51))
    assert rates == pytest.approx([0.1 * (1 - (e - 1) / 49) ** 2 for e in epochs], abs=1e-9)


def test_learning_rates_of_iterations_and_epochs_together():
    cfg = schedule(
        dict(type='LinearLR', start_factor=0.25, by_epoch=False, begin=0, end=3),
        dict(type='MultiStepLR', milestones=[2], gamma=0.1),
        train_cfg=dict(max_epochs=3),
        auto_scale_lr=dict(base_batch_size=4),
    )
    epochs, rates = learning_rates(cfg, images=7)  # two iterations an epoch
    assert epochs == [1, 1.5, 2, 2.5, 3, 3.5]
    assert rates == pytest.approx([0.1, 0.25, 0.4, 0.4, 0.04, 0.04])


def test_schedule_without_an_end_goes_to_the_end_of_the_training():
    poly = dict(type='PolyLR', power=1, eta_min=0, by_epoch=True)
    cfg = schedule(
        dict(poly, convert_to_iter_based=True),
        train_cfg=dict(max_epochs=2),
        auto_scale_lr=dict(base_batch_size=4),
    )
    assert learning_rates(cfg, 12)[1] == pytest.approx([0.4 * (1 - i / 5) for i in range(6)])
    cfg = schedule(
        dict(poly, by_epoch=False),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=5),
        auto_scale_lr=dict(base_batch_size=4),
    )
    assert learning_rates(cfg, 8)[1] == pytest.approx([0.4 * (1 - i / 4) for i in range(5)])


def test_unknown_length_of_an_epoch_is_refused():
    cfg = schedule(
        dict(type='LinearLR', start_factor=0.1, by_epoch=False), train_cfg=dict(max_epochs=3)
    )
    with pytest.raises(ValueError, match=r'auto_scale_lr = dict\(base_batch_size='):
        learning_rates(cfg, images=7)
