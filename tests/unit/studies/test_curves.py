"""Curves out of logs, learning rates out of configs, and their plots."""

import json
import runpy

import pytest
from mmengine.config import Config
from PIL import Image

from gcp_mm.checks import learning_rates
from gcp_mm.studies.curves import first_reaching, training_curve, validation_curve
from tests.helpers.runs import CLS, ROOT

TOOL = 'tools/plot_curves.py'
IMAGENET = ROOT / 'configs/imagenet/resnet18-gcp_8xb32-lradju_in1k.py'


def write_log(work_dir, timestamp, *scalars):
    folder = work_dir / timestamp / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(''.join(json.dumps(line) + '\n' for line in scalars))


def validations(*accuracies, first=1):
    return [{'accuracy/top1': a, 'step': e} for e, a in enumerate(accuracies, first)]


def test_resumed_run_replaces_what_it_repeats(tmp_path):
    write_log(tmp_path, '20260101_000000', {'loss': 1.0, 'step': 10}, *validations(50.0, 60.0))
    write_log(tmp_path, '20260102_000000', *validations(70.0, first=2))
    assert validation_curve(tmp_path) == {1: 50.0, 2: 70.0}


def test_line_that_a_kill_cut_short_is_left_out(tmp_path):
    write_log(tmp_path, '20260101_000000', *validations(50.0, 60.0))
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    log.write_text(log.read_text() + '{"accuracy/top1": 7')
    assert validation_curve(tmp_path) == {1: 50.0, 2: 60.0}


def test_broken_line_is_named(tmp_path):
    write_log(tmp_path, '20260101_000000', *validations(50.0, 60.0))
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    log.write_text('{"accur\n' + log.read_text())
    with pytest.raises(ValueError, match=r'scalars\.json, line 1: .*delete the line'):
        validation_curve(tmp_path)


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


def test_run_without_the_metric_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='work dir of a training'):
        validation_curve(tmp_path)
    write_log(tmp_path, '20260101_000000', {'coco/bbox_mAP': 0.5, 'step': 1})
    with pytest.raises(ValueError, match=r"'accuracy/top1'; logged are coco/bbox_mAP, step"):
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


def test_table_and_plot_of_runs(call_tool, tmp_path, capsys):
    write_log(tmp_path / 'gap', '20260101_000000', *validations(50.0, 71.0, 70.0))
    write_log(tmp_path / 'gcp', '20260101_000000', *validations(60.0, 70.0))
    write_log(tmp_path / 'bad', '20260101_000000', *validations(60.0, 69.0))
    runs = [tmp_path / name for name in ('gap', 'gcp', 'bad')]
    call_tool(TOOL, *runs, '--out', tmp_path)
    written = (tmp_path / 'curves.md').read_text()
    assert written in capsys.readouterr().out
    assert '| gap | 3 | 70 | 71 | 2 |' in written
    assert '| gcp | 2 | 70 | 70 | 2 |' in written
    assert '| bad | 2 | 69 | 69 | not reached |' in written
    report = json.loads((tmp_path / 'curves.json').read_text())
    assert [row['matching_epoch'] for row in report['table']] == [2, 2, None]
    before = (tmp_path / 'curves.png').read_bytes()
    call_tool(TOOL, *runs, '--error', '--names', 'a', 'b', 'c', '--out', tmp_path)
    assert (tmp_path / 'curves.png').read_bytes() != before
    assert json.loads((tmp_path / 'curves.json').read_text())['table'][0]['final'] == 70


def test_plot_of_learning_rates(call_tool, tmp_path):
    call_tool(TOOL, '--lr', IMAGENET, f'{IMAGENET} param_scheduler.power=11', '--out', tmp_path)
    assert Image.open(tmp_path / 'learning_rates.png').size == (900, 600)
    name, (epochs, rates) = runpy.run_path(str(ROOT / TOOL))['named_rates'](
        f'{IMAGENET} param_scheduler.power=11 train_cfg.max_epochs=30', 1
    )
    assert name == 'resnet18-gcp_8xb32-lradju_in1k, power=11, max_epochs=30'
    assert len(epochs) == 30
    assert rates[10] == pytest.approx(0.1 * (1 - 10 / 49) ** 11)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((), 'name RUN_DIRs'),
        (('a', 'b', '--names', 'x'), 'expected 2 different names'),
        (('a', '--metric', 'coco/bbox_mAP', '--error'), 'is no accuracy'),
    ],
)
def test_wrong_arguments(call_tool, arguments, message, capsys):
    with pytest.raises(SystemExit):
        call_tool(TOOL, *arguments)
    assert message in capsys.readouterr().err


def test_log_of_a_real_run(run_tool, call_tool, short_cls, tmp_path):
    done = run_tool(
        *('tools/train.py', CLS, '--work-dir', tmp_path / 'run', '--cfg-options', *short_cls),
        *('model.head.cal_acc=True', 'default_hooks.logger.interval=1'),
    )
    assert done.returncode == 0, done.stdout
    call_tool(TOOL, tmp_path / 'run', '--out', tmp_path)
    report = json.loads((tmp_path / 'curves.json').read_text())
    (validated,), (trained,) = (report[kind]['run'].values() for kind in ('validation', 'training'))
    assert f'accuracy/top1: {validated:.4f}' in done.stdout
    assert 0 <= trained <= 100
