"""What the tools' mmengine reads does not run code; see test_reading for checkpoints."""

import ast
import pickle

import mmengine
import pytest
import yaml
from mmengine.fileio.handlers.registry_utils import file_handlers

from gcp_mm.checkpoints import install_safe_readers
from tests.helpers.pickles import Creates
from tests.helpers.runs import ROOT


@pytest.fixture(autouse=True)
def handlers():
    """mmengine's own again, after a test."""
    before = file_handlers.copy()
    yield
    file_handlers.update(before)


@pytest.mark.parametrize(
    ('name', 'error', 'words'),
    [
        ('a.pkl', ValueError, 'is a pickle, which can execute code .* give --trust'),
        ('a.yaml', yaml.YAMLError, 'could not determine a constructor'),
        ('a.yml', yaml.YAMLError, 'could not determine a constructor'),
    ],
)
def test_no_code_is_run_unless_trusted(tmp_path, name, error, words):
    path, sign = tmp_path / name, tmp_path / 'sign'
    if name == 'a.pkl':
        path.write_bytes(pickle.dumps(dict(a=Creates(sign))))
    else:
        path.write_text(f'a: !!python/object/apply:os.mkdir ["{sign}"]')
    install_safe_readers()
    with pytest.raises(error, match=words):
        mmengine.load(path)
    assert not sign.exists()
    install_safe_readers(trust=True)
    mmengine.load(path)
    assert sign.exists()  # so it is what the refusal prevented


def test_plain_values_are_as_before(tmp_path):
    install_safe_readers()
    content = dict(a=(1, 2), b=['x', None], c=dict(d=(1.5, (True,))))  # YAML has a tag for tuples
    mmengine.dump(content, tmp_path / 'a.yaml')
    assert mmengine.load(tmp_path / 'a.yaml') == content
    for name in ('a.json', 'a.pkl'):
        mmengine.dump(dict(a=1), tmp_path / name)
    assert mmengine.load(tmp_path / 'a.json') == dict(a=1)
    assert pickle.loads((tmp_path / 'a.pkl').read_bytes()) == dict(a=1)


# Calls that run what a string or a file says
DANGEROUS = {'eval', 'exec', 'os.system', 'os.popen', 'pickle.load', 'pickle.loads', 'yaml.load'}


def test_source_calls_nothing_that_runs_text():
    for path in (*ROOT.glob('gcp_mm/**/*.py'), *ROOT.glob('tools/**/*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in DANGEROUS, f'{path}:{node.lineno}'
                for keyword in node.keywords:
                    shell = keyword.arg == 'shell' and ast.unparse(keyword.value) != 'False'
                    assert not shell, f'{path}:{node.lineno}'
