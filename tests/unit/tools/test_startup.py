"""What a tool says outside its environment, and what it keeps from the screen."""

import io
import sys
import warnings
from contextlib import redirect_stdout

import startup

import pytest
import torch
from mmengine.runner import CheckpointLoader
from pycocotools.coco import COCO


@pytest.mark.parametrize(
    ('here', 'said'),
    [
        (True, 'make install, then . .venv/bin/activate'),
        (False, "make -C '{0}' install, then . '{0}'/.venv/bin/activate"),
    ],
)
def test_advice(here, said, tmp_path, monkeypatch):
    root = tmp_path / 'a checkout'
    root.mkdir()
    monkeypatch.setattr(startup, 'ROOT', root)
    monkeypatch.chdir(root if here else tmp_path)
    assert startup.advice() == said.format(root)


@pytest.mark.parametrize(('rank', 'lines'), [('0', 1), ('3', 0)])
def test_first_process_says_what_is_absent(rank, lines, monkeypatch, capsys):
    monkeypatch.setattr(startup, 'PACKAGES', ('torch', 'package_of_nowhere'))
    monkeypatch.setenv('RANK', rank)
    with pytest.raises(SystemExit) as end:
        startup.check_environment()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.count('\n') == lines
    assert ('has no package_of_nowhere;' in said) == bool(lines)


def test_screen_leaves_out_what_the_packages_print(tmp_path, capsys):
    path = tmp_path / 'a.json'
    path.write_text('{"images": [{"id": 1}], "annotations": [], "categories": []}')
    torch.save({}, tmp_path / 'a.pth')
    with redirect_stdout(startup.Screen(sys.stdout)):
        coco = COCO(path)
        coco.loadRes([dict(image_id=1, category_id=1, bbox=[0, 0, 1, 1], score=1.0)])
        CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'), logger=None)
        print('the end')
    assert capsys.readouterr().out == 'the end\n'


LOGGED = '\x1b[4m11/29 10:15:00 - mmengine - \x1b[33mWARNING\x1b[0m - {}\n'


def test_screen_leaves_out_known_lines_alone():
    stream = io.StringIO()
    screen = startup.Screen(stream)
    for line in ('creating index...', 'index created!', 'Done (t=0.01s)', 'a', '', 'Done', 'b'):
        print(line, file=screen, flush=True)
    print('creating index... of my own', file=screen)
    screen.write(LOGGED.format('"FileClient" will be deprecated in future. Please use io'))
    screen.write(LOGGED.replace('WARNING', 'INFO').format('Exp name: cls_20260101_000000'))
    screen.write(LOGGED.format('FileClient is not what you want'))
    kept = ['a', '', 'Done', 'b', 'creating index... of my own']
    assert stream.getvalue().splitlines()[:-1] == kept
    assert stream.getvalue().endswith('FileClient is not what you want\n')


def test_warnings_are_left_out_by_message_and_module():
    modules = {
        'pkg_resources is deprecated as an API': ['mmengine.utils.package_utils', 'importlib'],
        'Setting MKL_NUM_THREADS environment variable': ['mmengine.utils.dl_utils.setup_env'],
    }
    for message, owners in modules.items():
        for module in [*owners, 'mine']:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter('always')
                startup.leave_out_warnings()
                warnings.warn_explicit(message, UserWarning, 'a.py', 1, module=module)
                warnings.warn_explicit('other', UserWarning, 'a.py', 1, module=module)
            said = [str(each.message) for each in caught]
            assert said == (['other'] if module in owners else [message, 'other'])
