"""One job writes an output; a killed one does not keep the next out."""

import multiprocessing
import os
import signal

import pytest
from mmengine.config import Config

from gcp_mm._lock import locked
from gcp_mm.data.complete import written_once
from gcp_mm.runtime import only_job

FORK = multiprocessing.get_context('fork')


def hold(output, pipe, folder=False):
    with locked(output, folder):
        pipe.send('locked')
        pipe.recv()


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds the lock of an output, until it is told to end."""
    processes = []

    def start(output, folder=False):
        ours, its = FORK.Pipe()
        process = FORK.Process(target=hold, args=(output, its, folder))
        process.start()
        assert ours.recv() == 'locked'
        process.end = lambda: (ours.send('end'), process.join())
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.join()


@pytest.mark.parametrize('folder', [True, False])
def test_second_process_is_told_who_has_it(holder, tmp_path, folder):
    output = tmp_path / 'out'
    process = holder(output, folder)
    (tmp_path / 'link').symlink_to(tmp_path, target_is_directory=True)
    for name in (output, tmp_path / 'link/out'):
        refused = pytest.raises(BlockingIOError, match=f'process {process.pid} on .*{output}')
        with refused, locked(name, folder):
            pass
    with locked(tmp_path / 'other', folder):
        pass
    process.end()
    with locked(output, folder):
        pass
    assert not list(tmp_path.rglob('*lock'))


def test_killed_process_releases_it(holder, tmp_path):
    """Though a process that it forked lives on, and the file is there."""
    process = holder(tmp_path / 'out')
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (tmp_path / 'out.lock').exists()
    with locked(tmp_path / 'out'):
        child = FORK.Process(target=signal.pause)
        child.start()
    with locked(tmp_path / 'out'):
        pass
    child.kill()
    child.join()
    assert not (tmp_path / 'out.lock').exists()


def test_folders_of_an_output_that_was_not_written_go(tmp_path):
    with locked(tmp_path / 'work_dirs/run', folder=True):
        pass
    assert not (tmp_path / 'work_dirs').exists()
    with locked(tmp_path / 'work_dirs/run', folder=True):
        (tmp_path / 'work_dirs/run/a').touch()
    assert (tmp_path / 'work_dirs/run/a').exists()


def test_processes_of_one_job_do_not_lock_each_other_out(holder, tmp_path, monkeypatch):
    process = holder(tmp_path, folder=True)
    for launcher, variable in (
        ('pytorch', 'RANK'),
        ('slurm', 'SLURM_PROCID'),
        ('mpi', 'OMPI_COMM_WORLD_RANK'),
    ):
        cfg = Config(dict(launcher=launcher))
        monkeypatch.setenv(variable, '1')
        with only_job(cfg, tmp_path, folder=True):
            pass
        monkeypatch.setenv(variable, '0')
        refused = pytest.raises(BlockingIOError, match=f'process {process.pid} on')
        with refused, only_job(cfg, tmp_path, folder=True):
            pass
        monkeypatch.setenv(variable, '1')
    cfg = Config(dict(launcher='none'))  # the environment is that of another job
    with pytest.raises(BlockingIOError), only_job(cfg, tmp_path, folder=True):
        pass


def make(root, pipe):
    with written_once(root, {}) as folder:
        if folder:
            (folder / 'a').write_text('a')
            pipe.send('writing')
            pipe.recv()


def test_folder_that_two_processes_make(tmp_path):
    (ours, its), root = FORK.Pipe(), tmp_path / 'digits'
    first = FORK.Process(target=make, args=(root, its))
    first.start()
    assert ours.recv() == 'writing'
    second = FORK.Process(target=make, args=(root, its))
    second.start()
    second.join(0.2)
    ours.send('end')
    first.join()
    second.join()
    assert (first.exitcode, second.exitcode) == (0, 0)
    assert sorted(path.name for path in tmp_path.rglob('*')) == ['a', 'digits', 'made-with.json']


def none(*_):
    raise OSError(37, 'No locks available')


@pytest.mark.parametrize('folder', [True, False])
def test_without_locks_a_warning_says_so(tmp_path, monkeypatch, folder):
    monkeypatch.setattr('fcntl.lockf', none)
    warned = pytest.warns(UserWarning, match='out: no lock .*No locks available')
    with warned, locked(tmp_path / 'out', folder):
        pass
