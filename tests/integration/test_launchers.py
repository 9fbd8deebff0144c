"""The launchers' own checks, and that they pass on what they are given."""

import os
import socket
import sys
from pathlib import Path

import pytest

from tests.helpers.runs import CLS, ROOT

# What a shell would split, expand or execute
AWKWARD = """it's a "run" of $HOME; $(touch sign) `touch sign` * [1-4]"""


@pytest.mark.parametrize(
    ('processes', 'variables', 'words'),
    [
        *((processes, {}, 'number of processes') for processes in ((), ('two',), (0,))),
        *(((2,), dict(PORT=p), f'PORT={p} cannot be used (') for p in ('x', '-1', '65536')),
        *(
            ((2,), variables, 'expected the number of machines, and this one')
            for variables in (
                dict(NNODES='2', NODE_RANK='2'),
                dict(NNODES='two'),
                dict(NODE_RANK='1'),
                dict(NNODES='0'),
            )
        ),
    ],
)
def test_dist_train_refuses(run_tool, processes, variables, words):
    done = run_tool('tools/dist_train.sh', CLS, *processes, **variables)
    assert done.returncode == 2
    assert words in done.stdout


@pytest.fixture
def taken():
    """A port that another process listens on."""
    with socket.create_server(('', 0)) as server:
        yield str(server.getsockname()[1])


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh'])
def test_port_in_use(run_tool, taken, script):
    done = run_tool(f'tools/{script}', CLS, *(['x.pth'] if 'test' in script else []), 2, PORT=taken)
    assert done.returncode == 2
    assert done.stdout == (
        f'PORT={taken} cannot be used (another process uses it): set PORT to a free one, on every '
        'machine\n'
    )


@pytest.fixture
def stand_in(tmp_path):
    """A program that prints its arguments, one a line."""

    def make(name):
        path = tmp_path / name
        path.write_text('#!/usr/bin/env bash\nprintf \'%s\\n\' "$@"\n')
        path.chmod(0o755)
        return str(path)

    return make


def test_second_machine_needs_no_port_of_its_own(run_tool, stand_in, taken):
    """The processes meet on the first one."""
    variables = dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1', PORT=taken)
    done = run_tool('tools/dist_train.sh', CLS, 4, PYTHON=stand_in('python'), **variables)
    assert done.returncode == 0
    check, *words = done.stdout.splitlines()
    assert check == f'{ROOT}/tools/startup.py'
    assert words[2:] == [
        *('--nnodes=2', '--node_rank=1', '--nproc_per_node=4'),
        *('--master_addr=10.0.0.1', f'--master_port={taken}'),
        *(f'{ROOT}/tools/train.py', CLS, '--launcher', 'pytorch'),
    ]


@pytest.mark.parametrize('rank', '01')
@pytest.mark.parametrize('absent', [True, False])
def test_python_that_is_not_the_environments(run_tool, tmp_path, absent, rank):
    python, said = tmp_path / 'python', "there is no program '{}'; "
    if not absent:
        python.write_text(f'#!/usr/bin/env bash\nexec {sys.executable} -S "$@"\n')
        python.chmod(0o755)
        said = 'torch, torchvision'
    variables = dict(PYTHON=str(python), NNODES='2', NODE_RANK=rank)
    done = run_tool('tools/dist_train.sh', CLS, 1, **variables)
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    assert said.format(python) in line
    assert line.endswith(('/bin/activate', ' install'))


def test_awkward_words_arrive_as_they_are(run_tool, stand_in):
    words = [AWKWARD, '4', '--work-dir', AWKWARD, '--cfg-options', f'a={AWKWARD}', '']
    done = run_tool(
        'tools/dist_train.sh', *words, PYTHON=stand_in('python'), NNODES='2', NODE_RANK='1'
    )
    tool = done.stdout.split('\n')[-len(words) - 3 : -1]
    assert tool == [f'{ROOT}/tools/train.py', AWKWARD, '--launcher', 'pytorch', *words[2:]]


@pytest.mark.slow
def test_awkward_paths_train(run_tool, short_cls, tmp_path):
    folder = tmp_path / AWKWARD
    folder.mkdir()
    config, work_dir = folder / f'{AWKWARD}.py', folder / 'run'
    config.write_text(f'_base_ = {str(ROOT / CLS)!r}\n')
    done = run_tool(
        *('tools/dist_train.sh', config, 1, '--work-dir', work_dir, '--cfg-options', *short_cls)
    )
    assert done.returncode == 0, done.stdout
    assert (work_dir / 'epoch_1.pth').exists()
    assert not (ROOT / 'sign').exists()


@pytest.fixture
def slurm(stand_in, run_tool):
    """Run a script; returns what Slurm's launcher would get, and the finished process."""
    path = f'{Path(stand_in("srun")).parent}:{os.environ["PATH"]}'

    def run(*command, **variables):
        done = run_tool(*command, PATH=path, PYTHON='python', **variables)
        return done.stdout.splitlines(), done

    return run


@pytest.mark.parametrize(
    ('script', 'tail'),
    [
        ('slurm_train.sh', ['train.py', 'c.py', '--work-dir', AWKWARD, '--resume']),
        ('slurm_test.sh', ['test.py', 'c.py', AWKWARD, '--resume']),
    ],
)
def test_slurm_scripts(slurm, script, tail):
    variables = dict(GPUS='16', SRUN_ARGS='--nodelist=node[1-4] --exclusive')
    words, _ = slurm(f'tools/{script}', 'gpu', 'a job', 'c.py', AWKWARD, '--resume', **variables)
    assert words == [
        *('--partition=gpu', '--job-name=a job', '--gres=gpu:8', '--ntasks=16'),
        *('--ntasks-per-node=8', '--cpus-per-task=5', '--kill-on-bad-exit=1'),
        *('--nodelist=node[1-4]', '--exclusive', f'{ROOT}/tools/python.sh', 'python', '-u'),
        *(f'{ROOT}/tools/{tail[0]}', *tail[1:], '--launcher', 'slurm'),
    ]
    _, done = slurm(f'tools/{script}', 'gpu', 'job', 'c.py')
    assert done.returncode == 2
    assert f'usage: tools/{script} PARTITION JOB_NAME CONFIG' in done.stdout
