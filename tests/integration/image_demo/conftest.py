"""A run of tools/image_demo.py, and what it reads."""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from gcp_mm import get_model
from tests.helpers.runs import CLS, ROOT

TOOL = 'tools/image_demo.py'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Checkpoint of a config, with random weights that tell pictures apart."""
    folder = tmp_path_factory.mktemp('checkpoints')

    def make(config):
        path = folder / f'{config.replace("/", "_")}.pth'
        if not path.exists():
            torch.manual_seed(0)
            model = get_model(config)
            if hasattr(getattr(model, 'head', None), 'fc'):
                model.head.fc.weight.data *= 1000
            state = model.state_dict()
            named = dict(dataset_meta=dict(classes=tuple('0123456789')))
            meta = {} if '::' in config else named
            torch.save(dict(meta=meta, state_dict=state), path)
        return path

    return make


@pytest.fixture
def demo(call_tool, checkpoint, tmp_path):
    """Run the tool with a config or, a Path, an exported file; returns predictions.json.

    `fails` is what is said at the end of a run with bad files.
    """

    def run(network, *arguments, out='out', fails=None):
        words = [network] if isinstance(network, Path) else [network, checkpoint(network)]
        with pytest.raises(SystemExit, match=fails) if fails else contextlib.nullcontext():
            call_tool(TOOL, *words, *arguments, '--out-dir', tmp_path / out)
        return json.loads((tmp_path / out / 'predictions.json').read_text())

    return run


@pytest.fixture
def predict(demo):
    """Run the tool; returns the predictions."""
    return lambda *arguments, **options: demo(*arguments, **options)['predictions']


@pytest.fixture
def other(tmp_path):
    """Config of the digits' network with other settings."""

    def make(**settings):
        path = tmp_path / 'config.py'
        lines = [f'{name} = {value!r}' for name, value in settings.items()]
        path.write_text('\n'.join([f'_base_ = {str(ROOT / CLS)!r}', *lines]))
        return str(path)

    return make


@pytest.fixture
def pictures(digits, tmp_path):
    """A folder with pictures of the same name in its sub-folders, and other files."""
    folder = tmp_path / 'in'
    names = ('a.png', 'large.png', 'sub/a.pgm', 'sub/a.png', 'sub/deep/b.JPG')
    for number, name in enumerate(names):
        image = Image.open(sorted((digits / f'val/{number}').iterdir())[0])
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (image.resize((40, 48)) if name == 'large.png' else image).save(folder / name)
    (folder / '.cache').mkdir()
    (folder / '.cache/preview.png').write_bytes(b'no picture')
    (folder / 'notes.txt').write_text('no picture')
    return folder
