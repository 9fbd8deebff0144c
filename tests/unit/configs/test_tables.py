"""READMEs and metafiles list every config, with its numbers and its commands."""

import functools
import re
from pathlib import Path

import pytest
import torch
from mmengine.hub import get_config
from mmpretrain.apis.model import ModelHub
from modelindex.load_model_index import load as load_model_index
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.configs import (
    COCO,
    CONFIGS,
    IMAGENET,
    count_parameters,
    load,
    name_of,
    outline,
    pretraining,
)
from tests.helpers.runs import ROOT

README = (ROOT / 'configs/imagenet/README.md').read_text()


def models_of(folder):
    """Models of a metafile, by the reader of MMPretrain and mim."""
    return load_model_index(str(ROOT / f'configs/{folder}/metafile.yml')).models


def test_readme_has_every_config_with_its_gpus():
    rows = re.findall(r'\| `([\w-]+)` \| (\d+) \|$', README, re.M)
    rows += re.findall(r'tools/dist_train\.sh configs/imagenet/(\S+-poly_\S+)\.py (\d+)', README)
    assert sorted({f'configs/imagenet/{name}.py' for name, _ in rows}) == IMAGENET
    assert all(int(gpus) == name_of(f'{name}.py')[1] for name, gpus in rows)
    assert '`tools/dist_train.sh configs/imagenet/CONFIG.py GPUS`' in README


@pytest.mark.parametrize('name', ['resnet/resnet152', 'vgg/vgg19', 'vgg/vgg19bn'])
def test_stock_configs_of_the_readme_exist(name):
    stock = f'mmpretrain::{name}_8xb32_in1k.py'
    assert f'| `{stock}` | 8 |' in README
    assert get_config(stock).train_dataloader.batch_size == 32


def test_model_index_lists_every_config_once(monkeypatch):
    """By the reader of MMPretrain and mim."""
    index = load_model_index(str(ROOT / 'model-index.yml'))
    assert not index.check_errors
    folders = ('imagenet', 'faster_rcnn', 'mask_rcnn', 'second_order')
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
    """Of convolutions, classifier, covariance and, where it has them, the 12 products of 5
    Newton-Schulz iterations."""
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
        root = 12 * d**3 if model.neck.norm == 'newton_schulz' else 0
        pooling = d**2 * height * width + root
    return sum(convolutions) + pooling + model.head.fc.weight.numel()


def accuracies_in_readme(prefix=''):
    """Top-1 and top-5 accuracy in the tables of the README, by heading and config.

    Args:
        prefix: of the columns' names: '' for the paper's accuracies, 'released '.
    """
    accuracies, table, columns = {}, None, None
    for line in README.splitlines():
        if line.startswith('#'):
            table = line.lstrip('# ').split(':')[0]
        if not line.startswith('|'):
            columns = None
        else:
            cells = [cell.strip() for cell in line.strip('|').split('|')]
            columns = columns or cells
            row = dict(zip(columns, cells, strict=True))
            config = re.fullmatch(r'`([\w-]+)`', row.get('config', ''))
            if config and f'{prefix}top-1' in row:
                accuracies[table, f'configs/imagenet/{config[1]}.py'] = tuple(
                    float(row[f'{prefix}{name}']) for name in ('top-1', 'top-5')
                )
    return accuracies


def test_metafile_describes_the_networks_and_has_the_readmes_numbers():
    accuracies = accuracies_in_readme()
    assert {table for table, _ in accuracies} == {'Table 2', 'Table 5', 'Table 8', 'Table 9'}
    listed = set()
    for model in models_of('imagenet'):
        assert model.metadata.parameters == count_parameters(model.config)
        assert model.metadata.flops == multiply_adds(outline(model.config))
        assert model.metadata.epochs == load(model.config).train_cfg.max_epochs
        assert model.metadata.batch_size == load(model.config).auto_scale_lr.base_batch_size
        if model.results:
            (result,) = model.results
            # a schedule that the paper does not print has none of its results
            assert not re.search('-(released|printed)', model.name)
            source = model.metadata.data['Results From'].removeprefix('the paper, ')
            assert accuracies[source, model.config] == (
                result.metrics['Top 1 Accuracy'],
                result.metrics['Top 5 Accuracy'],
            )
            listed.add(model.config)
    assert listed == {config for _, config in accuracies}


def test_metafile_and_readme_have_the_released_accuracies():
    models = models_of('imagenet')
    assert (
        models[0].full_model.metadata.data['Released From'].endswith('ZhangLi-CS/GCP_Optimization')
    )
    released = {
        model.config: tuple(model.metadata.data['Released'].values())
        for model in models
        if 'Released' in model.metadata.data
    }
    readme = accuracies_in_readme('released ')
    assert {config: pair for (_, config), pair in readme.items()} == released
    # all networks, poolings and schedules of Figure 3, and four networks with D = 128
    published = {path for path in released if '-released' not in path}
    assert len(published) == 6 * 2 * 3 + 4
    for path in released.keys() - published:  # the same weights, under the schedule they had
        assert released[path] == released[path.replace('-released', '')]
    # of which these differ from the paper's tables
    assert released['configs/imagenet/resnet50-gcp-d128_8xb32-lrnorm_in1k.py'] == (78.02, 94.02)
    assert released['configs/imagenet/resnet50-gcp-d128_8xb32-lradju_in1k.py'] == (77.72, 93.73)
    assert released['configs/imagenet/mobilenet-v2_4xb24-lrnorm_in1k.py'] == (71.62, 90.18)


@pytest.mark.parametrize('folder', ['imagenet', 'faster_rcnn', 'mask_rcnn'])
def test_metafile_says_in_words_what_the_names_say(folder):
    for model in models_of(folder):
        metadata, backbone = model.metadata.data, load(model.config).model.backbone
        depth = f'ResNet-{backbone.depth}' if 'depth' in backbone else ''
        assert metadata['Network'].startswith(depth or ('MobileNetV2', 'ShuffleNetV2'))
        assert metadata['Pooling'].startswith('GCP' if '-gcp' in model.name else 'GAP')
        assert metadata['Schedule'].split(',')[0].lower() in model.name.replace(
            '-poly', '-polynomial'
        )
        if channels := re.search(r'D = (\d+)(?: then (\d+))?', metadata['Pooling']):
            reduction = load(model.config).model.neck.reduction
            assert reduction == tuple(int(d) for d in channels.groups() if d)


def column(lines, row, name):
    """Cells of the column `name` in those rows of Markdown tables that contain `row`."""
    header = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if name in cells:
            header = cells
        elif line.startswith('|') and row in line:
            yield cells[header.index(name)]


@pytest.mark.parametrize('folder', ['faster_rcnn', 'mask_rcnn'])
def test_readme_and_metafile_have_every_detector(folder, tmp_path):
    from mmengine.infer import BaseInferencer

    paths = [path for path in COCO if Path(path).parent.name == folder]
    metafile = ROOT / 'configs' / folder / 'metafile.yml'
    models = {model.config: model for model in models_of(folder)}  # as mim
    assert sorted(models) == paths
    (tmp_path / 'model-index.yml').write_text(f'Import: [{metafile}]')
    read = BaseInferencer._get_models_from_metafile(str(tmp_path))  # as MMDetection
    assert sorted(model['Name'] for model in read) == sorted(Path(path).stem for path in paths)

    lines = (metafile.parent / 'README.md').read_text().replace('\\\n    ', '').splitlines()
    for path in paths:
        name, cfg, source = Path(path).stem, load(path), pretraining(path)
        assert models[path].name == name
        metadata = models[path].full_model.metadata
        gpus = metadata.batch_size // cfg.train_dataloader.batch_size
        assert gpus * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 8
        assert metadata.epochs == cfg.train_cfg.max_epochs
        commands = [
            f'tools/dist_train.sh {source} {re.search(r"_([0-9]+)xb", source)[1]}',
            f'tools/dist_train.sh {path} {gpus}',
            f'tools/dist_test.sh {path} work_dirs/{name}/epoch_12.pth {gpus}',
        ]
        start = lines.index('## Commands')
        lines_of = [lines.index(command, start) for command in commands]
        assert lines_of == sorted(lines_of)
        metrics = [ap for result in models[path].results for ap in result.metrics.values()]
        assert set(column(lines, f'({name}.py)', 'AP')) == set(map(str, metrics))


def test_metafile_of_later_methods_has_the_readmes_numbers():
    folder = ROOT / 'configs/second_order'
    lines = (folder / 'README.md').read_text().splitlines()
    titles, _, *rows = [line.strip('|').split('|') for line in lines if line.startswith('|')]
    titles = [title.strip() for title in titles]
    rows = [dict(zip(titles, map(str.strip, row), strict=True)) for row in rows]
    readme = {row.pop('config'): row for row in rows}
    links = dict(re.findall(r'\[([^]]+)\]\((http[^)]+)\)', '\n'.join(lines)))
    models = models_of('second_order')
    assert sorted(model.name for model in models) == sorted(readme)
    for model in models:
        row, metadata, cfg = readme[model.name], model.metadata, load(model.config)
        trained = metadata.data.get('Trained Parameters', metadata.parameters)
        assert metadata.parameters == count_parameters(model.config)
        assert trained == sum(
            p.numel() for p in outline(model.config).parameters() if p.requires_grad
        )
        some = ' trained' if trained < metadata.parameters else ''
        assert row['parameters (M)'] == f'{trained / 1e6:.2f}{some}'
        assert re.search(rf'_{row["GPUS"]}xb{cfg.train_dataloader.batch_size}[-_]', model.name)
        assert metadata.epochs == cfg.train_cfg.max_epochs
        assert metadata.batch_size == cfg.auto_scale_lr.base_batch_size
        results = [result.metrics['Top 1 Accuracy'] for result in model.results or []]
        assert row['published top-1'] == ''.join(map(str, results))
        source = metadata.data.get('Results From', '')
        assert re.sub(r'\[(.+)\]\(.+\)', r'\1', row['source']) == source
        assert source not in links or links[source] == model.paper['URL']


def test_metafile_of_later_methods_says_what_the_configs_say():
    for model in models_of('second_order'):
        metadata, cfg = model.full_model.metadata, load(model.config)
        text, optimizer = metadata.data['Pooling'], cfg.optim_wrapper.optimizer.type
        assert metadata.data['Schedule'].startswith(
            'LRadju' if '-lradju' in model.name else optimizer
        )
        assert metadata.training_data.startswith(
            'CUB' if model.name.endswith('cub') else 'ImageNet'
        )
        head = outline(model.config).head
        if channels := re.search(r'D = (\d+)', text):
            assert cfg.model.neck.reduction == (int(channels[1]),)
        else:
            heads, width = map(int, re.search(r'(\d+) heads of (\d+)', text).groups())
            assert head.num_heads == heads
            assert head.project.out_features == heads * width * (2 if hasattr(head, 'width') else 1)


@pytest.mark.parametrize(
    'model',
    models_of('second_order'),
    ids=lambda model: model.name,
)
def test_multiply_adds_of_later_methods(model):
    """Images of CUB are larger, and decompositions are not counted: those configs have none."""
    network = outline(model.config)
    if model.name.endswith('_cub'):
        assert model.metadata.flops is None
    elif model.name.startswith('resnet'):
        assert model.metadata.flops == multiply_adds(network)
    else:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, 224, 224, device='meta'))
        # PyTorch's versions count attention and matrix-vector products differently
        expected = pytest.approx(2 * model.metadata.flops, rel=1e-3)
        assert counter.get_total_flops() == expected


def test_table_4_has_the_networks_of_the_authors():
    """LRnorm with GCP in every family, torchvision's weights for ResNets with GAP."""
    page = (ROOT / 'docs/guides/robustness.md').read_text()
    section = page.split('## Table 4\n')[1].split('\n## ')[0]
    rows = re.findall(r'^\| (.+?), (GAP|GCP)\S*.*? \| `(\S+)` \| (\w+) \|(.*)\|$', section, re.M)
    assert len(rows) == 6 * 2 + 1  # MobileNetV2's GAP twice
    trained = dict(re.findall(r'^trained (\S+) (\d+)$', section, re.M))
    for network, pooling, config, weights, _ in rows:
        path = f'configs/imagenet/{config}.py'
        assert path in IMAGENET
        assert config.endswith('-lrnorm_in1k')
        assert ('-gcp_' in config) == (pooling == 'GCP')
        from_torchvision = network.startswith('ResNet') and pooling == 'GAP'
        assert weights == ('torchvision' if from_torchvision else 'LRnorm')
        if not from_torchvision:
            assert int(trained[config]) == load(path).train_cfg.max_epochs
    mobilenets = [numbers.split('|') for name, pooling, *_, numbers in rows[:2]]
    assert [[float(n) for n in numbers if n.strip()] for numbers in mobilenets] == [
        [87.1, 114.9, 79.8, 96.5],  # of the paper
        [86.4, 113.6, 79.1, 96.0],  # of the authors' README
    ]
