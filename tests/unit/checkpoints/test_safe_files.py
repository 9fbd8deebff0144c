"""What the tools' mmengine reads does not run code; see test_checkpoints for checkpoints."""

import ast
import os
import pickle

import mmengine
import pytest
import yaml
from mmengine.fileio.handlers.registry_utils import file_handlers

from gcp_mm.checkpoints import install_safe_readers
from tests.helpers.runs import ROOT


@pytest.fixture(autouse=True)
def handlers():
    """mmengine's own again, after a test."""
    before = file_handlers.copy()
    yield
    file_handlers.update(before)


class Creates:
    """Pickled, a call that makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write(folder, name, sign):
    if name.endswith('.pkl'):
        content = pickle.dumps(dict(a=Creates(sign)))
    else:
        content = f'a: !!python/object/apply:os.mkdir ["{sign}"]'.encode()
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(
    ('name', 'error', 'words'),
    [
        ('a.pkl', ValueError, 'is a pickle, which can execute code .* give --trust'),
        ('a.yaml', yaml.YAMLError, 'could not determine a constructor'),
        ('a.yml', yaml.YAMLError, 'could not determine a constructor'),
    ],
)
def test_no_code_is_run_unless_trusted(tmp_path, name, error, words):
    sign = tmp_path / 'sign'
    path = write(tmp_path, name, sign)
    install_safe_readers()
    with pytest.raises(error, match=words):
        mmengine.load(path)
    assert not sign.exists()
    install_safe_readers(trust=True)
    mmengine.load(path)
    assert sign.exists()  # so it is what the refusal prevented


def test_plain_values_and_tuples_of_yaml(tmp_path):
    content = dict(a=(1, 2), b=['x', None], c=dict(d=(1.5, (True,))))
    mmengine.dump(content, tmp_path / 'a.yaml')
    install_safe_readers()
    assert mmengine.load(tmp_path / 'a.yaml') == content


def test_json_and_writing_are_as_before(tmp_path):
    install_safe_readers()
    for name in ('a.json', 'a.pkl', 'a.yml'):
        mmengine.dump(dict(a=1), tmp_path / name)
    assert mmengine.load(tmp_path / 'a.json') == dict(a=1)
    assert pickle.loads((tmp_path / 'a.pkl').read_bytes()) == dict(a=1)


@pytest.mark.parametrize('tool', ['tools/train.py', 'tools/check_data.py'])
def test_annotations_in_a_pickle(tmp_path, run_tool, digits, tool):
    """By a tool, whose dataset reads them."""
    sign = tmp_path / 'sign'
    annotations = write(tmp_path, 'a.pkl', sign)
    config = tmp_path / 'config.py'
    dataset = f"dict(_delete_=True, type='BaseDataset', data_root='', ann_file='{annotations}')"
    config.write_text(
        f"_base_ = '{ROOT}/configs/digits/resnet18-gcp_1xb64-5e_digits.py'\n"
        f"work_dir = '{tmp_path}/w'\n"
        f'train_dataloader = dict(dataset={dataset})\n'
        f"val_dataloader = dict(dataset=dict(data_root='{digits}'))\n"
    )
    done = run_tool(tool, config)
    assert done.returncode != 0
    assert 'is a pickle, which can execute code' in done.stdout
    assert not sign.exists()


# Calls that run what a string or a file says
DANGEROUS = {'eval', 'exec', 'os.system', 'os.popen', 'pickle.load', 'pickle.loads', 'yaml.load'}


@pytest.mark.parametrize(
    'path', [*ROOT.glob('gcp_mm/**/*.py'), *ROOT.glob('tools/**/*.py')], ids=str
)
def test_source_calls_nothing_that_runs_text(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in DANGEROUS, f'{path}:{node.lineno}'
            for keyword in node.keywords:
                shell = keyword.arg == 'shell' and ast.unparse(keyword.value) != 'False'
                assert not shell, f'{path}:{node.lineno}'
