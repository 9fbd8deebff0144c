"""Every config builds the network that its name says, and files list each of them."""

import functools
import re
from pathlib import Path

import pytest
import torch
import torchvision
from mmengine.config import Config
from mmengine.hub import get_config
from mmpretrain.apis.model import ModelHub
from modelindex.load_model_index import load as load_model_index

from gcp_mm.checks.head import check_head
from tests.helpers.configs import (
    CONFIGS,
    IMAGENET,
    build_model,
    count_parameters,
    load,
    name_of,
    outline,
)
from tests.helpers.runs import ROOT


@pytest.mark.parametrize('path', CONFIGS)
def test_config_builds(path):
    cfg = load(path)
    assert 'gcp_mm' in cfg.custom_imports['imports']
    check_head(cfg.model)
    assert count_parameters(path) > 1e6


@pytest.mark.parametrize('path', CONFIGS)
def test_rows_of_the_tables_are_short(path):
    assert len((ROOT / path).read_text().splitlines()) <= 25


README = (ROOT / 'configs/imagenet/README.md').read_text()
# Table 9 of the paper: parameters in millions
PARAMETERS = {
    'resnet18': 11.69,
    'resnet34': 21.80,
    'resnet50': 25.56,
    'resnet101': 44.55,
    'resnet18-gcp-8k': 19.60,
    'resnet34-gcp-8k': 29.71,
    'resnet50-gcp-8k': 32.32,
    'resnet101-gcp-8k': 51.31,
}


@pytest.mark.parametrize('net', PARAMETERS)
def test_parameters_are_table_9s(net):
    size = count_parameters(f'configs/imagenet/{net}_8xb32-lrnorm_in1k.py')
    assert round(size / 1e6, 2) == PARAMETERS[net]


LIGHT = {
    'mobilenet-v2': (torchvision.models.mobilenet_v2, '4xb24', 1280),
    'shufflenet-v2': (torchvision.models.shufflenet_v2_x1_0, '4xb256', 1024),
}


@pytest.mark.parametrize('net', LIGHT)
def test_light_networks_are_torchvisions(net):
    """With torchvision's weights, in its order, they give its scores."""
    constructor, batch, _ = LIGHT[net]
    model = build_model(load(f'configs/imagenet/{net}_{batch}-lrnorm_in1k.py')).eval()
    expected = constructor().eval()
    weights = expected.state_dict().values()
    keys = [key for key in model.state_dict() if not key.startswith('data_preprocessor')]
    state = dict(zip(keys, weights, strict=True))
    model.load_state_dict(state)
    image = torch.randn(1, 3, 65, 97)
    torch.testing.assert_close(model(image), expected(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('net', 'd'), [('mobilenet-v2', 256), ('mobilenet-v2', 128), ('shufflenet-v2', 256)]
)
def test_parameters_of_light_networks_with_gcp(net, d):
    """The backbone, a convolution without bias and its BN, and the classifier."""
    constructor, batch, channels = LIGHT[net]
    backbone = sum(p.numel() for p in constructor().parameters()) - (channels + 1) * 1000
    suffix = '-d128' if d == 128 else ''
    size = count_parameters(f'configs/imagenet/{net}-gcp{suffix}_{batch}-lrnorm_in1k.py')
    assert size == backbone + channels * d + 2 * d + (d * (d + 1) // 2 + 1) * 1000


@pytest.mark.parametrize(
    ('name', 'conv5', 'reduction'),
    [
        ('resnet50_8xb32', 'stride', None),
        ('resnet50-gcp_8xb32', 'none', (256,)),
        ('resnet50-gcp-d128_8xb32', 'none', (128,)),
        ('resnet50-gcp-ds_8xb32', 'stride', (256,)),
        ('resnet101-gcp-8k_8xb32', 'none', (256, 128)),
        ('mobilenet-v2_4xb24', None, None),
        ('mobilenet-v2-gcp_4xb24', None, (256,)),
        ('mobilenet-v2-gcp-d128_4xb24', None, (128,)),
        ('shufflenet-v2_4xb256', None, None),
        ('shufflenet-v2-gcp_4xb256', None, (256,)),
    ],
)
def test_names_say_what_the_networks_are(name, conv5, reduction):
    cfg = load(f'configs/imagenet/{name}-lrnorm_in1k.py')
    model = cfg.model
    assert model.backbone.get('conv5') == conv5
    assert model.neck.get('reduction') == reduction
    assert model.head.get('dropout') == (0.2 if 'mobilenet' in name else None)
    # PyTorch's initialisation of the classifier, but in MobileNetV2 MMPretrain's
    assert model.head.get('init_cfg', 'stock') == ('stock' if 'mobilenet' in name else None)
    if reduction:
        activation = 'ReLU' if 'resnet' in name else 'ReLU6'
        assert model.neck.get('act_cfg', dict(type='ReLU'))['type'] == activation
    jitter = [step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'ColorJitter']
    strength = dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4)
    assert jitter == ([strength] if 'shufflenet' in name else [])


def check_normal(weight, std):
    weight = weight.detach()
    assert weight.std() == pytest.approx(std, rel=5 / (2 * weight.numel()) ** 0.5)
    assert weight.abs().max() > 2 * std


def check_uniform(weight, bound):
    weight = weight.detach()
    assert weight.std() == pytest.approx(bound / 3**0.5, rel=5 / (2 * weight.numel()) ** 0.5)
    assert weight.abs().max() <= bound


@pytest.mark.parametrize(
    'name', ['resnet18-gcp_8xb32', 'mobilenet-v2-gcp_4xb24', 'shufflenet-v2-gcp_4xb256']
)
def test_initialisation(name):
    """As in the paper's code: He's, fan-out, but PyTorch's own in ShuffleNetV2."""
    model = build_model(load(f'configs/imagenet/{name}-lrnorm_in1k.py'))
    model.init_weights()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            w = module.weight
            if 'shufflenet' in name:
                check_uniform(w, w[0].numel() ** -0.5)
            else:
                check_normal(w, (2 / (module.out_channels * w[0, 0].numel())) ** 0.5)
        elif isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
            assert (module.eps, module.momentum) == (1e-5, 0.1)
    fc = model.head.fc
    if 'mobilenet' in name:
        check_normal(fc.weight, 0.01)
        assert (fc.bias == 0).all()
    else:
        check_uniform(fc.weight, fc.in_features**-0.5)
        check_uniform(fc.bias, fc.in_features**-0.5)


def test_readme_has_the_command_of_every_row():
    rows = dict(re.findall(r'tools/dist_train\.sh (configs/imagenet/\S+\.py) (\d+)', README))
    assert sorted(rows) == IMAGENET
    assert all(int(gpus) == name_of(path)[1] for path, gpus in rows.items())


@pytest.mark.parametrize('name', ['resnet/resnet152', 'vgg/vgg19', 'vgg/vgg19bn'])
def test_stock_configs_of_the_readme_exist(name):
    stock = f'mmpretrain::{name}_8xb32_in1k.py'
    assert f'tools/dist_train.sh {stock} 8' in README
    assert get_config(stock).train_dataloader.batch_size == 32


def test_model_index_lists_every_config_once(monkeypatch):
    """By the reader of MMPretrain and mim."""
    index = load_model_index(str(ROOT / 'model-index.yml'))
    assert not index.check_errors
    folders = ('imagenet', 'faster_rcnn', 'mask_rcnn')
    tables = [p for p in CONFIGS if Path(p).parent.name in folders]
    assert sorted(model.config for model in index.models) == tables
    monkeypatch.setattr(ModelHub, '_models_dict', {})
    ModelHub.register_model_index(ROOT / 'model-index.yml', config_prefix=ROOT)
    assert {name: Path(model.config) for name, model in ModelHub._models_dict.items()} == {
        Path(path).stem: ROOT / path for path in tables
    }
    for model in index.models:
        assert model.name == Path(model.config).stem
        assert model.weights is None
        assert (ROOT / model.full_model.readme).is_file()


@functools.cache
def multiply_adds(model):
    """Of convolutions, classifier, covariance and the 12 products of 5 Newton-Schulz iterations."""
    convolutions = []
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda conv, _, out: convolutions.append(out.numel() * conv.weight[0].numel())
            )
    (x,) = model.backbone(torch.empty(1, 3, 224, 224, device='meta'))
    pooling = 0
    if hasattr(model.neck, 'reduction'):
        _, d, height, width = model.neck.reduction(x).shape
        pooling = d**2 * height * width + 12 * d**3
    return sum(convolutions) + pooling + model.head.fc.weight.numel()


def papers_accuracies():
    """Top-1 and top-5 accuracy in the tables of the README, by table and config."""
    accuracies, table, columns = {}, None, None
    for line in README.splitlines():
        if line.startswith('#'):
            table, columns = line.lstrip('# ').split(':')[0], None
        elif line.startswith('|'):
            cells = [cell.strip() for cell in line.strip('|').split('|')]
            columns = columns or cells
            row = dict(zip(columns, cells, strict=True))
            config = re.search(r'configs/imagenet/\S+\.py', row.get('command', ''))
            if config and 'top-1' in row:
                accuracies[table, config[0]] = (float(row['top-1']), float(row['top-5']))
    return accuracies


def test_metafile_describes_the_networks_and_has_the_readmes_numbers():
    accuracies = papers_accuracies()
    assert {table for table, _ in accuracies} == {'Table 2', 'Table 5', 'Table 8', 'Table 9'}
    listed = set()
    for model in load_model_index(str(ROOT / 'configs/imagenet/metafile.yml')).models:
        assert model.metadata.parameters == count_parameters(model.config)
        assert model.metadata.flops == multiply_adds(outline(model.config))
        assert model.metadata.epochs == load(model.config).train_cfg.max_epochs
        assert model.metadata.batch_size == load(model.config).auto_scale_lr.base_batch_size
        if model.results:
            (result,) = model.results
            source = model.metadata.data['Results From'].removeprefix('the paper, ')
            assert accuracies[source, model.config] == (
                result.metrics['Top 1 Accuracy'],
                result.metrics['Top 5 Accuracy'],
            )
            listed.add(model.config)
    assert listed == {config for _, config in accuracies}


def test_config_in_the_readme_builds(tmp_path):
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.S)
    (text,) = [block for block in blocks if block.startswith('_base_')]
    path = tmp_path / 'mobilenet-v2-gcp.py'
    path.write_text(text)
    cfg = Config.fromfile(path)
    check_head(cfg.model)
    model = build_model(cfg).eval()
    (scores,) = model(torch.rand(1, 3, 64, 64))
    assert scores.shape == (1000,)
