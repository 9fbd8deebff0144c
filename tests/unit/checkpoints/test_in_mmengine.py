"""What the tools' mmengine reads does not run code; see test_reading for checkpoints."""

import ast
import pickle
import re

import mmengine
import pytest
import torch
import yaml
from mmengine.fileio.handlers.registry_utils import file_handlers
from mmengine.runner import CheckpointLoader

from gcp_mm.checkpoints import check_checkpoint_file, install_safe_readers, read_checkpoint
from tests.helpers.pickles import Creates
from tests.helpers.runs import ROOT


@pytest.fixture(autouse=True)
def handlers():
    """mmengine's own again, after a test."""
    before, schemes = file_handlers.copy(), CheckpointLoader._schemes.copy()
    yield
    file_handlers.update(before)
    CheckpointLoader._schemes = schemes


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


@pytest.mark.parametrize('trust', [True, False])
def test_every_scheme_is_read_here(trust):
    """Those that mmengine knows, and any other: its own readers run a pickle's program."""
    install_safe_readers(trust)
    schemes = [re.sub(r'\(.*\)\?', '', scheme) for scheme in CheckpointLoader._schemes]
    assert {'openmmlab://', 'mmcls://', 'pavi://', 's3://', ''} <= set(schemes)
    for address in (*(f'{scheme}net.pth' for scheme in schemes), 'cluster:s3://net.pth', 'x://a'):
        loader = CheckpointLoader._get_checkpoint_loader(address)
        assert loader.__module__ == 'gcp_mm.checkpoints.in_mmengine', address


@pytest.mark.parametrize('scheme', ['mmcls', 'pavi', 'file', 'HTTP', 'ftp'])
def test_unknown_schemes_are_refused(scheme):
    install_safe_readers()
    for read in (read_checkpoint, check_checkpoint_file, CheckpointLoader.load_checkpoint):
        with pytest.raises(ValueError, match=f"'{scheme}://a.pth': the scheme '{scheme}' is none"):
            read(f'{scheme}://a.pth')


@pytest.mark.parametrize('scheme', ['openmmlab', 'open-mmlab', 'torchvision', 'modelzoo'])
def test_names_of_weights_that_do_not_exist(scheme):
    with pytest.raises(ValueError, match=f"{scheme} has no weights 'a'"):
        read_checkpoint(f'{scheme}://a')


def test_storage_of_mmengine(tmp_path, monkeypatch):
    """Of a cluster's too, by whatever serves it."""
    torch.save({'a': torch.ones(4)}, tmp_path / 'a.pth')
    content = (tmp_path / 'a.pth').read_bytes()
    monkeypatch.setattr('mmengine.fileio.get', lambda address: content)
    for address in ('s3://a.pth', 'cluster:s3://a.pth', 'petrel://a.pth'):
        assert read_checkpoint(address)['a'].sum() == 4
    content = b'<html>'
    with pytest.raises(ValueError, match=r's3://a\.pth.*web page'):
        read_checkpoint('s3://a.pth')


# Calls that run what a string or a file says, and where such files have their one door
DANGEROUS = {
    **dict.fromkeys(('eval', 'exec', 'os.system', 'os.popen', 'yaml.load')),
    **dict.fromkeys(('pickle.load', 'pickle.loads', 'torch.hub.load', 'joblib.load')),
    **dict.fromkeys(('load_checkpoint', 'load_url', 'CheckpointLoader.load_checkpoint')),
    'torch.jit.load': 'gcp_mm/export.py',  # of exported files, which are programs
    'torch.load': 'gcp_mm/checkpoints/reading.py',
    'Config.fromfile': 'gcp_mm/hub.py',
    'get_config': 'gcp_mm/hub.py',
    'mmengine.load': None,
}  # fmt: skip


def test_source_calls_nothing_that_runs_text():
    for path in (*ROOT.glob('gcp_mm/**/*.py'), *ROOT.glob('tools/**/*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name, where = ast.unparse(node.func), f'{path}:{node.lineno}'
                if name in DANGEROUS:
                    assert str(path.relative_to(ROOT)) == DANGEROUS[name], where
                options = {each.arg: ast.unparse(each.value) for each in node.keywords}
                assert options.get('shell', 'False') == 'False', where
                if name in ('np.load', 'numpy.load'):
                    assert options['allow_pickle'] == 'False', where
            elif isinstance(node, ast.ImportFrom):  # by which one of them gets a shorter name
                hidden = {f'{node.module}.{alias.name}' for alias in node.names}
                assert not hidden & {*DANGEROUS, 'numpy.load', 'os.system'}, f'{path}:{node.lineno}'
