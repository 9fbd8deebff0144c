"""Cores that are too few are told, and a folder that holds another training."""

import pytest
import torch
from mmengine.config import Config

from gcp_mm.checks import machine
from gcp_mm.checks.machine import check_cores, check_work_dir
from tests.helpers.checks import findings, texts


@pytest.fixture
def warnings(monkeypatch):
    """What is said of a run without an accelerator."""

    def warn(cores, threads, processes=1, launched=True, device='cpu'):
        monkeypatch.setattr(machine, 'get_device', lambda: device)
        monkeypatch.setattr(machine, 'number_of_cores', lambda: cores)
        monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
        monkeypatch.delenv('LOCAL_WORLD_SIZE', raising=False)
        if processes > 1 and launched:
            monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))
        return texts('warning', check_cores, Config(), processes=processes)

    return warn


@pytest.mark.parametrize(
    'options',
    [
        dict(cores=2, threads=2),
        dict(cores=2, threads=1, processes=2),
        dict(cores=4, threads=4, processes=8, device='cuda'),
        dict(cores=2, threads=2, processes=8, launched=False),  # --gpus 8
    ],
)
def test_usual_runs(warnings, options):
    assert warnings(**options) == []


@pytest.mark.parametrize(
    ('options', 'made', 'remedy'),
    [
        (dict(processes=2), '2 processes x 4 threads', 'OMP_NUM_THREADS=2'),
        (dict(processes=8, threads=1), '8 processes x 1 thread ', 'run at most 4 processes'),
    ],
)
def test_more_than_there_are_cores(warnings, options, made, remedy):
    (text,) = warnings(**{**dict(cores=4, threads=4), **options})
    assert made in text
    assert 'on 4 cores' in text
    assert text.endswith(remedy)


@pytest.fixture
def run(tmp_path):
    """Config of a training in a folder with files of an earlier one."""

    def run(*files, name='mine.py', **settings):
        for file in files:
            (tmp_path / 'run' / file).parent.mkdir(exist_ok=True)
            (tmp_path / 'run' / file).touch()
        own = tmp_path / name
        own.write_text(f'work_dir = {str(tmp_path / "run")!r}')
        cfg = Config.fromfile(own)
        cfg.merge_from_dict(settings)
        return cfg

    return run


def test_folder_of_another_training(run, tmp_path):
    cfg = run('epoch_9.pth', 'epoch_10.pth', 'best_top1_epoch_7.pth', 'mine.py')
    (text,) = texts('warning', check_work_dir, cfg)
    assert f'{str(tmp_path / "run")!r} holds another training, up to epoch_10.pth' in text
    assert '--resume' in text
    assert '--work-dir' in text


def test_folder_to_go_on_in(run):
    assert findings(check_work_dir, run())[0].status == 'ok'
    assert findings(check_work_dir, run('mine.py', '1/mine.log'))[0].status == 'ok'
    assert findings(check_work_dir, run('epoch_1.pth', resume=True))[0].status == 'skipped'
    hook = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False))
    assert findings(check_work_dir, run(default_hooks=hook))[0].status == 'ok'
    assert texts('warning', check_work_dir, run('iter_500.pth', default_hooks=hook))
    hook['checkpoint']['out_dir'] = 's3://elsewhere'
    assert findings(check_work_dir, run(default_hooks=hook))[0].status == 'ok'
