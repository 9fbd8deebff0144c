"""Every config builds, trains as the paper says, and runs on files in the data's own layout."""

import copy
import functools
import json
import math
import re
import runpy
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import mmengine.config.utils
import numpy as np
import pytest
import torch
import torchvision
from mmengine.config import Config
from mmengine.hooks import ParamSchedulerHook
from mmengine.hub import get_config
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from mmpretrain.apis.model import ModelHub
from modelindex.load_model_index import load as load_model_index
from PIL import Image
from torch.nn.modules.module import register_module_parameter_registration_hook

from gcp_mm.checks.context import Context
from gcp_mm.checks.network import check_head
from tests.helpers.coco_files import CATEGORY_IDS, write_coco
from tests.helpers.runs import ROOT, config_of

CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / 'configs').glob('*/*.py')
    if path.parent.name != '_base_'
)
DETECTORS = [path for path in CONFIGS if 'rcnn' in path]
IMAGENET = [path for path in CONFIGS if path.startswith('configs/imagenet/')]
COCO = 'configs/faster_rcnn/faster-rcnn_r50-gcp-m_fpn_1x_coco.py'


def build_model(cfg):
    """Build the model, without the pretrained weights that this test has none of."""
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.pop('init_cfg', None)
    if 'data_preprocessor' in cfg:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return MODELS.build(cfg.model)


@pytest.fixture(scope='module', autouse=True)
def metafiles_are_read_once():
    """mmengine reads all of MMPretrain's for every base that a config takes from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmengine.config.utils, 'load', functools.cache(mmengine.config.utils.load))
        yield


@functools.cache
def _read(path):
    return Config.fromfile(ROOT / path)


def load(path):
    return copy.deepcopy(_read(path))


def outline(path):
    """The model of a config on the meta device: parameters without storage take no time to fill."""
    keys = ('default_scope', 'model', 'data_preprocessor')
    return _outline(json.dumps({key: value for key, value in load(path).items() if key in keys}))


@functools.cache
def _outline(text):
    without_storage = register_module_parameter_registration_hook(
        lambda module, name, p: torch.nn.Parameter(p.to('meta'), p.requires_grad)
    )
    with without_storage:
        return build_model(Config(json.loads(text))).eval().to('meta')


def count_parameters(path):
    return sum(p.numel() for p in outline(path).parameters())


@pytest.mark.parametrize('path', CONFIGS)
def test_config_builds(path):
    cfg = load(path)
    assert 'gcp_mm' in cfg.custom_imports['imports']
    assert check_head(Context(cfg))[0].status != 'error'
    assert count_parameters(path) > 1e6


@pytest.mark.parametrize('path', CONFIGS)
def test_rows_of_the_tables_are_short(path):
    assert len((ROOT / path).read_text().splitlines()) <= 25


def pretraining(path):
    """Path of the config that makes the checkpoint a detector starts from."""
    checkpoint = Path(load(path).model.backbone.init_cfg.checkpoint)
    (source,) = [p for p in CONFIGS if Path(p).stem == checkpoint.parent.name]
    assert checkpoint.name == f'epoch_{load(source).train_cfg.max_epochs}.pth'
    return source


# What a detector's name says of conv5: in its trunk's pretraining, in the detector
CONV5 = {
    '': ('stride', 'stride'),
    '-gcp-d': ('none', 'stride'),
    '-gcp-m': ('none', 'maxpool'),
    '-gcp-ds': ('stride', 'stride'),
}


@pytest.mark.parametrize('path', DETECTORS)
def test_detector_starts_from_a_checkpoint_that_a_config_here_makes(path):
    depth, method = re.search(r'-rcnn_r(\d+)(.*?)_fpn', path).groups()
    backbone, source = load(path).model.backbone, load(pretraining(path)).model
    assert backbone.init_cfg.prefix == 'backbone.'
    assert backbone.depth == source.backbone.depth == int(depth)
    assert (source.backbone.conv5, backbone.conv5) == CONV5[method]
    assert (source.neck.type == 'GlobalCovariancePooling') == ('gcp' in method)


def check_step(cfg, model, data):
    """One optimizer step through the framework's own data preprocessor and loss."""
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    trained = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    losses = model.train_step(data, optim_wrapper)
    assert torch.isfinite(losses['loss'])
    assert all(p.grad is None or p.grad.isfinite().all() for p in trained)
    changed = [not torch.equal(p, b) for p, b in zip(trained, before, strict=True)]
    assert sum(changed) > 0.9 * len(changed)


def test_coco_config_takes_a_step():
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    cfg = load(COCO)
    model = build_model(cfg)
    model.init_weights()
    sample = DetDataSample(
        gt_instances=InstanceData(
            bboxes=torch.tensor([[10.0, 10, 90, 100]]), labels=torch.tensor([17])
        ),
        metainfo=dict(img_shape=(120, 150), ori_shape=(120, 150), scale_factor=(1.0, 1.0)),
    )
    image = torch.randint(0, 256, (3, 120, 150), dtype=torch.uint8)
    check_step(cfg, model, dict(inputs=[image], data_samples=[sample]))


def linear(start, end):
    """A stage of MobileNetV2's LRadju: linear(start, end, n) of Table 3, 50 epochs."""
    return start - (start - end) / 50 * np.arange(50)


def polynomial(rho, e_f, epochs):
    """Equation (9) of the paper with l_0 = 0.1 and e_s = 1, in epochs e = 1, 2, ..."""
    e = np.arange(1, epochs + 1)
    return 0.1 * (1 - (e - 1) / (e_f - 1)) ** rho


# Steps of an epoch: ImageNet's images in ShuffleNetV2's batches
STEPS = -(-1281167 // 1024)


def linear_to_zero(epochs):
    """ShuffleNetV2's learning rates in every step."""
    t_step = STEPS * epochs
    return 0.5 * (1 - np.arange(t_step) / t_step)


# Table 3 of the paper: learning rates in all epochs, or steps. It counts the ResNets' epochs from
# 1, except in their LRnorm, the usual schedule: 0.1 for 30 epochs. It counts MobileNetV2's from 0:
# 0.045 is its initial rate (section 3.2), and the first stage of LRadju begins at epoch 0.
LEARNING_RATES = {
    'resnet-lrnorm': 0.1 * 0.1 ** (np.arange(100) // 30),
    'resnet-lrfast': polynomial(11, 53, 30),
    'resnet-lradju': polynomial(2, 50, 50),
    'resnet-poly': polynomial(2, 50, 50),
    'mobilenet-lrnorm': 0.045 * 0.98 ** np.arange(400),
    'mobilenet-lrfast': 0.06 * 0.92 ** np.arange(100),
    # as the paper's code trained, then as Table 3 prints it
    'mobilenet-lradju': np.concatenate(
        [linear(6e-2, 1e-2), linear(1e-2, 1e-3), linear(1e-3, 1e-5)]
    ),
    'mobilenet-lradju-printed': np.concatenate(
        [linear(6e-2, 1e-3), linear(1e-2, 1e-4), linear(1e-3, 1e-5)]
    ),
    'shufflenet-lrnorm': linear_to_zero(240),
    'shufflenet-lrfast': linear_to_zero(60),
    'shufflenet-lradju': linear_to_zero(100),
}
WEIGHT_DECAY = dict(resnet=1e-4, mobilenet=4e-5, shufflenet=4e-5)


def batch_of(family, schedule):
    """Total batch: Table 2 of the paper."""
    if family == 'mobilenet':
        return 192 if 'lradju' in schedule else 96
    return dict(resnet=256, shufflenet=1024)[family]


class Weight(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self):
        """Abstract in its parent; the schedules need no data."""


@functools.cache
def simulate(settings, work_dir):
    """Learning rates of a whole training: its Runner's schedulers, stepped by its hook.

    One for each epoch or, where a scheduler goes by iterations, for each of them.
    """
    settings = Config(json.loads(settings))
    runner = Runner(
        Weight(),
        work_dir,
        train_dataloader=torch.utils.data.DataLoader(range(1281167), settings.pop('batch')),
        default_scope='mmpretrain',
        experiment_name=f'schedule{simulate.cache_info().misses}',
        log_level='ERROR',
        **settings,
    )
    assert runner.train_loop.max_epochs == runner.max_epochs  # the loop is built
    optim_wrapper = runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    schedulers = runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    by_iteration = not all(scheduler.by_epoch for scheduler in schedulers)
    hook = ParamSchedulerHook()
    rates = []
    optim_wrapper.step()
    for _ in range(runner.max_epochs):
        for i in range(len(runner.train_dataloader) if by_iteration else 1):
            rates.append(optim_wrapper.param_groups[0]['lr'])
            hook.after_train_iter(runner, i)
        hook.after_train_epoch(runner)
    return np.array(rates)


@pytest.fixture(scope='module')
def learning_rates(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('schedules')

    def of(cfg):
        settings = {key: cfg[key] for key in ('train_cfg', 'optim_wrapper', 'param_scheduler')}
        settings['batch'] = cfg.auto_scale_lr.base_batch_size
        return simulate(json.dumps(settings), str(work_dir))

    return of


def name_of(path):
    """Family of networks, GPUs, images on each and schedule, out of a config's name."""
    pattern = r'([a-z]+)[^_]*_(\d+)xb(\d+)-([a-z-]+)_in1k\.py'
    family, gpus, batch, schedule = re.fullmatch(pattern, Path(path).name).groups()
    return family, int(gpus), int(batch), schedule


@pytest.mark.parametrize('path', IMAGENET)
def test_training_on_imagenet_is_the_papers(path, learning_rates):
    """Section 4.1 of the paper, Tables 2 and 3, every epoch (ShuffleNetV2: every step)."""
    cfg = load(path)
    family, gpus, batch, schedule = name_of(path)
    assert cfg.train_dataloader.batch_size == batch
    assert gpus * batch == cfg.auto_scale_lr.base_batch_size == batch_of(family, schedule)
    # no clipping, no accumulation, no weight without decay
    assert {key for key, value in cfg.optim_wrapper.items() if value} <= {'optimizer', '_scope_'}
    optimizer = build_optim_wrapper(Weight(), cfg.optim_wrapper).optimizer
    assert isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups
    expected = dict(momentum=0.9, weight_decay=WEIGHT_DECAY[family], dampening=0, nesterov=False)
    assert {key: group[key] for key in expected} == expected

    rates = LEARNING_RATES[f'{family}-{schedule}']
    # mmengine's linear decay ends at 0 in the last step, the formula one step later.
    tolerance = (
        dict(rtol=0, atol=0.5001 / len(rates)) if family == 'shufflenet' else dict(rtol=1e-9)
    )
    np.testing.assert_allclose(learning_rates(cfg), rates, **tolerance)
    assert cfg.train_cfg.val_interval == 1


def test_steps_of_shufflenet_are_the_papers():
    assert round(STEPS * 240, -4) == 3e5


README = (ROOT / 'configs/imagenet/README.md').read_text()


@pytest.mark.parametrize(('rho', 'e_f'), [(2, 50), (11, 53), (0.5, 64)])
def test_figure_4s_family_is_set_from_the_command_line(rho, e_f, learning_rates):
    """The command of the README, with other numbers."""
    (command,) = re.findall(
        r'^tools/dist_train.sh (\S+-poly_\S+) 8 (.*?[^\\])$', README, re.M | re.S
    )
    words = shlex.split(' '.join(command))
    options = words[words.index('--cfg-options') + 1 :]
    assert [option.split('=')[1] for option in options] == ['11', '53']
    options = [f'{option.split("=")[0]}={n}' for option, n in zip(options, (rho, e_f), strict=True)]
    cfg = config_of(ROOT / words[0], *options)
    np.testing.assert_allclose(
        learning_rates(cfg), polynomial(rho, e_f, e_f), rtol=1e-9, atol=1e-15
    )


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
    """The trunk, a convolution without bias and its BN, and the classifier."""
    constructor, batch, channels = LIGHT[net]
    trunk = sum(p.numel() for p in constructor().parameters()) - (channels + 1) * 1000
    suffix = '-d128' if d == 128 else ''
    size = count_parameters(f'configs/imagenet/{net}-gcp{suffix}_{batch}-lrnorm_in1k.py')
    assert size == trunk + channels * d + 2 * d + (d * (d + 1) // 2 + 1) * 1000


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


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory):
    """ImageNet's folders, {train,val}/<wnid>/*.JPEG, with an image of noise in each."""
    root = tmp_path_factory.mktemp('data') / 'imagenet'
    rng = np.random.default_rng(0)
    for i in range(1000):
        wnid = f'n{1440764 + 1000 * i:08}'
        image = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        for file in (f'train/{wnid}/{wnid}_{i}.JPEG', f'val/{wnid}/ILSVRC2012_val_{i + 1:08}.JPEG'):
            (root / file).parent.mkdir(parents=True)
            image.save(root / file)
    return root


def test_imagenets_files_have_a_label_each(imagenet):
    cfg = load(IMAGENET[0])
    init_default_scope(cfg.default_scope)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        dataset = DATASETS.build(dict(loader.dataset, data_root=str(imagenet)))
        assert list(dataset.get_gt_labels()) == list(range(1000))


@pytest.mark.parametrize(
    ('name', 'lr'),
    [
        ('resnet18-gcp_8xb32-lradju', 0.1),
        ('mobilenet-v2-gcp_4xb48-lradju', 0.06),
        ('shufflenet-v2-gcp_4xb256-lradju', 0.5),
    ],
)
def test_each_family_trains_and_validates_on_imagenets_files(
    name, lr, imagenet, tmp_path, monkeypatch
):
    """One iteration of 4 images and one validation of 4, by tools/train.py."""
    loaders = [
        f'{split}_dataloader.{setting}'
        for split in ('train', 'val')
        for setting in (
            *(f'dataset.data_root={imagenet}', 'dataset.indices=4'),
            *('batch_size=4', 'num_workers=0'),
        )
    ]
    command = [
        *('tools/train.py', f'configs/imagenet/{name}_in1k.py', '--work-dir', str(tmp_path)),
        *('--cfg-options', *loaders, 'train_cfg.max_epochs=1'),
        'default_hooks.checkpoint.interval=-1',
    ]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', command)
    runpy.run_path('tools/train.py', run_name='__main__')
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    train, val = (json.loads(line) for line in log.read_text().splitlines())
    assert train['lr'] == pytest.approx(lr)
    assert train['iter'] == 1
    assert np.isfinite(train['loss'])
    assert val.keys() >= {'accuracy/top1', 'accuracy/top5'}


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


COCO_CONFIGS = [path for path in DETECTORS if path.endswith('_coco.py')]


@pytest.mark.parametrize('path', COCO_CONFIGS)
def test_training_of_detectors_is_the_papers(path):
    """Section 4.3 of the paper, through mmengine's schedulers and the hook that steps them."""
    cfg = load(path)
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)
    # no clipping, no accumulation
    assert set(cfg.optim_wrapper) <= {'type', 'optimizer', '_scope_'}
    assert cfg.train_cfg.max_epochs == 12
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        (resize,) = [step for step in loader.dataset.pipeline if step.type == 'Resize']
        assert (resize.scale, resize.keep_ratio) == ((1333, 800), True)
    optim_wrapper = build_optim_wrapper(torch.nn.Linear(1, 1), cfg.optim_wrapper)
    hook = ParamSchedulerHook()
    runner = SimpleNamespace(
        param_schedulers=[
            PARAM_SCHEDULERS.build(scheduler, default_args=dict(optimizer=optim_wrapper))
            for scheduler in cfg.param_scheduler
        ]
    )
    iterations = 500  # of an epoch: as many as the warm-up has
    for epoch in range(1, 13):
        for i in range(iterations):
            step = (epoch - 1) * iterations + i
            warm_up = min(1, 0.001 + 0.999 * step / 499)  # MMDetection's
            lr = 0.01 * 0.1 ** ((epoch > 8) + (epoch > 11)) * warm_up
            assert math.isclose(optim_wrapper.get_lr()['lr'][0], lr, rel_tol=1e-9)
            optim_wrapper.step()
            hook.after_train_iter(runner, i)
        hook.after_train_epoch(runner)


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    from mmdet.datasets import CocoDataset

    root = tmp_path_factory.mktemp('data') / 'coco'
    write_coco(root, CocoDataset.METAINFO['classes'])
    return root


@pytest.mark.parametrize(
    'path',
    [
        pytest.param(
            'configs/faster_rcnn/faster-rcnn_r18-gcp-d_fpn_1x_coco.py', marks=pytest.mark.slow
        ),
        'configs/mask_rcnn/mask-rcnn_r50-gcp-m_fpn_1x_coco.py',
    ],
)
def test_detector_trains_and_validates_on_cocos_files(path, run_tool, coco, tmp_path):
    """One iteration of 2 images, with the learning rate scaled for them, and one validation."""
    classifier = load(pretraining(path))
    classifier.model.head.num_classes = 2  # for a small file
    trunk = build_model(classifier).state_dict()
    torch.save(dict(state_dict=trunk), tmp_path / 'epoch_100.pth')
    done = run_tool(
        *('tools/train.py', path, '--work-dir', tmp_path / 'run', '--auto-scale-lr'),
        *('--cfg-options', f'model.backbone.init_cfg.checkpoint={tmp_path}/epoch_100.pth'),
        *(f'{split}_dataloader.dataset.data_root={coco}/' for split in ('train', 'val')),
        *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val')),
        f'val_evaluator.ann_file={coco}/annotations/instances_val2017.json',
        f'val_evaluator.outfile_prefix={tmp_path}/val',
        'train_dataloader.dataset.pipeline.2.scale=(128,128)',
        'val_dataloader.dataset.pipeline.1.scale=(128,128)',
        *('train_cfg.max_epochs=1', 'default_hooks.checkpoint.save_optimizer=False'),
        *('model.train_cfg.rcnn.sampler.num=64', 'model.test_cfg.rpn.max_per_img=50'),
        'model.test_cfg.rcnn.score_thr=0',  # an untrained head is sure of nothing
    )
    assert done.returncode == 0, done.stdout
    (log,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    train, val = map(json.loads, log.read_text().splitlines())
    assert train['iter'] == 1
    assert train['lr'] == pytest.approx(0.01 * 2 / 8 * 0.001)  # scaled, at the warm-up's start
    assert math.isfinite(train['loss'])
    for kind in ('bbox', 'segm') if 'mask' in path else ('bbox',):
        assert 0 <= val[f'coco/{kind}_mAP'] <= 1
        found = json.loads((tmp_path / f'val.{kind}.json').read_text())
        assert {box['image_id'] for box in found} == {139, 285, 632}
        assert {box['category_id'] for box in found} <= set(CATEGORY_IDS)
    weights = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=False)['state_dict']
    assert torch.equal(weights['backbone.conv1.weight'], trunk['backbone.conv1.weight'])  # frozen
    moved = (weights[key] - trunk[key] for key in trunk if 'layer4.0.conv' in key)
    assert all(0 < change.abs().max() < 1e-3 for change in moved)


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

    paths = [path for path in COCO_CONFIGS if Path(path).parent.name == folder]
    metafile = ROOT / 'configs' / folder / 'metafile.yml'
    models = {model.config: model for model in load_model_index(str(metafile)).models}  # as mim
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
        places = [lines.index(command) for command in commands]
        assert places == sorted(places)
        metrics = [ap for result in models[path].results for ap in result.metrics.values()]
        assert set(column(lines, f'({name}.py)', 'AP')) == set(map(str, metrics))


def test_config_in_the_readme_builds(tmp_path):
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.S)
    (text,) = [block for block in blocks if block.startswith('_base_')]
    path = tmp_path / 'mobilenet-v2-gcp.py'
    path.write_text(text)
    cfg = Config.fromfile(path)
    assert check_head(Context(cfg))[0].status != 'error'
    model = build_model(cfg).eval()
    (scores,) = model(torch.rand(1, 3, 64, 64))
    assert scores.shape == (1000,)
