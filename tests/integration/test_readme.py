"""The README's Python runs as it is printed, where it says it does."""

import re
import sys

import pytest
import torch

from gcp_mm import get_model
from tests.helpers.runs import ROOT

PYTHON = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)
# All that the layer must not need; a module that is None in sys.modules cannot be imported.
OTHERS = (
    *('mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'torchvision', 'scipy', 'sklearn', 'matplotlib'),
    *('cv2', 'PIL', 'yaml', 'tqdm', 'packaging', 'pycocotools', 'rich'),
)
WITHOUT = f'import sys; sys.modules.update(dict.fromkeys({OTHERS!r}))\n'


def python(word):
    """The README's one block of Python that holds a word."""
    (block,) = (block for block in PYTHON if word in block)
    return block


@pytest.fixture
def without_others(run_tool):
    """Run code in a process that can import PyTorch and NumPy alone."""
    return lambda code: run_tool(sys.executable, '-c', WITHOUT + code)


def test_layer_needs_pytorch_alone(without_others):
    done = without_others(
        python('vectors = pool') + 'print(vectors.shape, classifier(vectors).shape)'
    )
    assert done.stdout == 'torch.Size([8, 32896]) torch.Size([8, 1000])\n'


def test_what_needs_more_says_so(without_others):
    done = without_others(
        'import gcp_mm\nprint(gcp_mm.__version__)\ntry:\n    gcp_mm.get_model\n'
        'except ImportError as error:\n    print(error)\n'
    )
    assert done.stdout.endswith(
        'gcp_mm.get_model needs OpenMMLab\'s packages: pip install "gcp_mm[mm]"\n'
    )


@pytest.fixture
def networks():
    """What the README makes of networks of torchvision and timm."""
    for package in ('torchvision', 'timm'):
        pytest.importorskip(package)
    names = {}
    exec(python('import timm'), names)
    return names


@pytest.mark.parametrize('name', ['resnet', 'convnext'])
def test_networks_of_other_packages(networks, name):
    model = networks[name].train()
    scores = model(torch.randn(2, 3, 64, 64))
    assert scores.shape == (2, 1000)
    scores.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_torchvisions_last_stage_keeps_its_resolution(networks):
    maps = []
    model = networks['resnet']
    model.avgpool.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0].shape))
    model(torch.randn(2, 3, 224, 224))
    assert maps == [(2, 2048, 14, 14)]


def test_config_gives_scores(tmp_path):
    path = tmp_path / 'readme.py'
    path.write_text(python('_base_'))
    assert get_model(path)(torch.rand(1, 3, 64, 64))[0].shape == (1000,)
