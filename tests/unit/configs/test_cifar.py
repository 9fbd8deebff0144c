"""Configs of CIFAR-100: the README's table, and a step on images in CIFAR's file format."""

import pickle
import re

import numpy as np
import pytest
import torch
import yaml
from mmengine.registry import DefaultScope
from mmpretrain.datasets import CIFAR100
from mmpretrain.registry import DATASETS

from tests.helpers.configs import CONFIGS, build_model, count_parameters, load, network_of
from tests.helpers.runs import ROOT

OWN = [path for path in CONFIGS if path.startswith('configs/cifar/')]
FOLDER = ROOT / 'configs/cifar'


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A folder of 4 images of random pixels for training and for testing."""
    folder = tmp_path / CIFAR100.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ('train', 'test'):
        pixels = rng.integers(0, 256, (4, 3 * 32 * 32), dtype=np.uint8)
        content = dict(data=pixels, fine_labels=[0, 1, 50, 99])
        (folder / name).write_bytes(pickle.dumps(content))
    # the checksums are those of the real files
    monkeypatch.setattr(CIFAR100, 'train_list', [['train', None]])
    monkeypatch.setattr(CIFAR100, 'test_list', [['test', None]])
    return tmp_path


@pytest.mark.parametrize('path', [path for path in OWN if 'lrnorm' not in path])
def test_a_step_on_images_in_cifars_format(path, cifar):
    """With LRadju, and LRnorm has the same network and images."""
    cfg, norm = load(path), load(path.replace('lradju', 'lrnorm'))
    assert cfg.train_dataloader == norm.train_dataloader
    assert network_of(cfg) == network_of(norm)
    cfg.train_dataloader.dataset.data_root = str(cifar)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(dataset.metainfo['classes']) == 100
    samples = [dataset[k] for k in range(4)]
    assert [sample['data_samples'].gt_label.item() for sample in samples] == [0, 1, 50, 99]
    model = build_model(cfg).train()
    batch = {key: [sample[key] for sample in samples] for key in samples[0]}
    data = model.data_preprocessor(batch, training=True)
    assert data['inputs'].shape == (4, 3, 32, 32)
    (features,) = model.backbone(data['inputs'])
    assert features.shape == (4, 512, *((8, 8) if 'gcp' in path else (4, 4)))
    model(**data, mode='loss')['loss'].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert torch.count_nonzero(model.head.fc.weight.grad)


def test_readme():
    rows = re.findall(r'^\| `(\S+)` \| (\d+) \| (\S+) \|', (FOLDER / 'README.md').read_text(), re.M)
    assert sorted(f'configs/cifar/{name}.py' for name, *_ in rows) == OWN
    for name, epochs, parameters in rows:
        path = f'configs/cifar/{name}.py'
        assert load(path).train_cfg.max_epochs == int(epochs)
        assert f'{count_parameters(path) / 1e6:.2f}' == parameters


def test_claims_name_every_config():
    table = yaml.safe_load((ROOT / 'tools/claims_cifar.yml').read_text())
    assert sorted(network['config'] for network in table['networks'].values()) == OWN
    rates = {load(path).optim_wrapper.optimizer.lr for path in OWN}
    assert {*table['tune']['rates']} == rates
    named = {
        claim[side] for claim in table['parts']['cifar']['claims'] for side in ('better', 'worse')
    }
    assert named == set(table['networks'])
