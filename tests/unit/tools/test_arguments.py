"""What the tools share."""

import sys

from arguments import check_outputs, printable, run

import pytest


def fails(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        (ValueError('size: got 0'), 'size: got 0'),
        (FileNotFoundError(2, 'No such file', 'a\x1b[31m'), r"No such file: 'a\x1b[31m'"),
        (ImportError('pip install onnx'), 'pip install onnx'),
        (FloatingPointError('iteration 3'), 'iteration 3'),
        (KeyError('Foo is not in the registry'), 'Foo is not in the registry'),
        (ValueError('a name \x1b]0;title\x07 of a file'), r'a name \x1b]0;title\x07 of a file'),
        (
            ValueError('Caught it.\nOriginal Traceback (most ...):\n  x\nValueError: bad'),
            'ValueError: bad',
        ),
        (TypeError(), 'TypeError()'),
    ],
)
def test_mistake_is_a_line(error, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['tools/x.py'])
    with pytest.raises(SystemExit) as end:
        run(fails(error))
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('x.py: error: ')
    assert said in line


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['x.py', '--debug', 'a'])
    with pytest.raises(ValueError, match='got 0'):
        run(fails(ValueError('got 0')))
    assert sys.argv == ['x.py', 'a']


@pytest.mark.parametrize('error', [KeyError('iter'), RuntimeError('x'), AttributeError('x y')])
def test_fault_of_the_program_keeps_its_traceback(error, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['x.py'])
    with pytest.raises(type(error)):
        run(fails(error))


def test_log_file_of_a_run_has_the_traceback(log, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['x.py'])
    with pytest.raises(SystemExit):
        run(fails(ValueError('got 0')))
    assert 'Traceback' in log()
    assert log().endswith('ValueError: got 0\n')


def test_printable():
    assert printable('größe 3\n\x1b\t\udcff') == 'größe 3\n\\x1b\\t\\udcff'


@pytest.fixture
def tree(tmp_path):
    """A file in a folder, and links to both."""
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in/a').write_text('a')
    (tmp_path / 'link').symlink_to(tmp_path / 'in')
    (tmp_path / 'file').symlink_to(tmp_path / 'in/a')
    return tmp_path


@pytest.mark.parametrize('output', ['in/a', 'link/a', 'file', 'in/../in/a'])
def test_output_is_no_input(tree, output):
    with pytest.raises(ValueError, match=f'output .*{output}'):
        check_outputs([None, tree / output], [None, 'https://a/b', tree / 'in/a'])
    with pytest.raises(ValueError, match=f'output .*{output}'):
        check_outputs([tree / output], [tree / 'file'])


@pytest.mark.parametrize('output', ['in', 'link', 'link/b/c', 'in/a'])
def test_output_is_not_in_an_input(tree, output):
    for folder in ('in', 'link'):
        with pytest.raises(ValueError, match=f'output .*{output}'):
            check_outputs([tree / output], [], [tree / folder])


def test_outputs_beside_inputs(tree, monkeypatch):
    monkeypatch.chdir(tree)
    check_outputs(['in/b', 'b', None], ['in/a', 'in'], [])  # 'in' may be the name of a config
    check_outputs(['inner/b'], ['in/a'], ['in'])
