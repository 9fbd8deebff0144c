"""Fine-tuning: backbone and reduction of a checkpoint, a new head, the learning rates."""

import re
import shutil

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from PIL import Image

from gcp_mm import get_model
from gcp_mm.checks import check_config, raise_errors
from gcp_mm.runtime import launch
from tests.helpers.runs import ROOT, config_of

DIGITS = 'configs/finetune/resnet18-gcp_1xb10-3e_digits-5-9.py'
CUB = 'configs/finetune/resnet50-gcp_1xb10-100e_cub.py'
FOLDER = 'configs/finetune/resnet50-gcp_1xb10-100e_folder.py'


class Watch(Hook):
    """Keeps the weights a training starts with, and the learning rates of every step."""

    def __init__(self):
        self.rates = []

    def before_train(self, runner):
        self.start = {key: w.clone() for key, w in runner.model.state_dict().items()}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        groups = runner.optim_wrapper.optimizer.param_groups
        rates = {id(p): (g['lr'], g['weight_decay']) for g in groups for p in g['params']}
        self.rates.append({key: rates[id(p)] for key, p in runner.model.named_parameters()})


def narrow(channels, **head):
    """Settings of a narrow network, whose backbone gives so many channels."""
    return dict(
        backbone=dict(stem_channels=8, base_channels=8),
        neck=dict(in_channels=channels, reduction=[16]),
        head=dict(in_channels=136, **head),
    )


def train(config, work_dir, checkpoint, channels, *options):
    """Train as tools/train.py does, narrow; returns the Runner and what was watched."""
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    cfg = config_of(
        ROOT / config,
        *(f'model.{part}.init_cfg.checkpoint={checkpoint}' for part in ('backbone', 'neck')),
        *(f'{name}.{o}' for name in loaders for o in ('num_workers=0', *options)),
        *('train_cfg.max_epochs=2', 'default_hooks.checkpoint=None'),
        work_dir=str(work_dir),
    )
    cfg.merge_from_dict(dict(model=narrow(channels)))
    raise_errors(check_config(cfg))
    watch = Watch()

    def run(runner):
        runner.register_hook(watch)
        runner.train()
        return runner

    return launch(cfg, run), watch


def save(path, config, **kwargs):
    """Save a classifier with random weights and statistics; returns what is in the file."""
    torch.manual_seed(1)  # the config's is 0
    state = get_model(config, **kwargs).state_dict()
    for key, value in state.items():
        if 'running' in key:
            value.uniform_(0.5, 1.5)
    torch.save(dict(state_dict=state), path)
    return state


def check_recipe(state, runner, watch):
    """The weights came from the file, all of them learn, the head five times as fast."""
    backbone = {key: w for key, w in state.items() if not key.startswith('head.')}
    assert {key.split('.')[0] for key in backbone} == {'backbone', 'neck'}
    assert watch.start.keys() == {*backbone, 'head.fc.weight', 'head.fc.bias'}
    for key, value in backbone.items():
        assert torch.equal(watch.start[key], value), key
    for rates in watch.rates:  # constant
        for key, rate in rates.items():
            assert rate == (pytest.approx(6e-3 if key.startswith('head.') else 1.2e-3), 1e-4), key
    same = [key for key, w in runner.model.state_dict().items() if torch.equal(watch.start[key], w)]
    assert same == []


@pytest.fixture
def digits_5_9(digits, tmp_path):
    for split in ('train', 'val'):
        for name in '56789':
            shutil.copytree(digits / split / name, tmp_path / 'digits-5-9' / split / name)
    return tmp_path / 'digits-5-9'


def test_digits_recipe(digits_5_9, tmp_path):
    state = save(tmp_path / 'x.pth', 'resnet18-gcp_1xb64-5e_digits', **narrow(64, num_classes=5))
    options = (f'dataset.data_root={digits_5_9}', 'dataset.indices=20')
    runner, watch = train(DIGITS, tmp_path / 'w', tmp_path / 'x.pth', 64, *options)
    assert len(watch.rates) == 4  # two epochs of two batches of ten
    check_recipe(state, runner, watch)
    assert watch.start['head.fc.weight'].shape == state['head.fc.weight'].shape
    assert not torch.equal(watch.start['head.fc.weight'], state['head.fc.weight'])
    assert ''.join(runner.train_dataloader.dataset.CLASSES) == '56789'


@pytest.fixture
def cub(tmp_path):
    """Four images of two classes, with the files of CUB-200-2011."""
    root = tmp_path / 'CUB_200_2011'
    images = [f'{name}/{name[4:]}_{n}.jpg' for name in ('001.Auk', '200.Wren') for n in (1, 2)]
    rng = np.random.default_rng(0)
    for image in images:
        (root / 'images' / image).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (600, 900, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / 'images' / image)
    for name, column in (
        ('images', images),
        ('image_class_labels', (1, 1, 200, 200)),
        ('train_test_split', (1, 0, 1, 0)),
    ):
        lines = [f'{number} {value}\n' for number, value in enumerate(column, 1)]
        (root / f'{name}.txt').write_text(''.join(lines))
    return root


def test_cub_recipe(cub, tmp_path):
    state = save(tmp_path / 'x.pth', CUB, **narrow(256, num_classes=2))
    sizes = ('dataset.pipeline.1.scale=64', 'dataset.pipeline.2.crop_size=64')
    options = (f'dataset.data_root={cub}', *sizes)
    runner, watch = train(CUB, tmp_path / 'w', tmp_path / 'x.pth', 256, *options)
    check_recipe(state, runner, watch)
    assert watch.start['head.fc.weight'].shape == (200, 136)
    labels = {
        split: [loader.dataset.get_data_info(i)['gt_label'] for i in range(2)]
        for split, loader in (('train', runner.train_dataloader), ('val', runner.val_dataloader))
    }
    assert labels == dict(train=[0, 199], val=[0, 199])


@pytest.mark.parametrize('config', [CUB, FOLDER])
def test_pipelines_at_448(config):
    """Short side to 448, the center cut out, in training flipped or not."""
    cfg = config_of(ROOT / config)
    center = [
        dict(type='ResizeEdge', scale=448, edge='short', backend='pillow'),
        dict(type='CenterCrop', crop_size=448),
    ]
    train, test = (cfg[f'{name}_dataloader'].dataset.pipeline[1:-1] for name in ('train', 'test'))
    assert test == center
    assert train == [*center, dict(type='RandomFlip', prob=0.5, direction='horizontal')]


def test_commands_of_the_readme_name_what_there_is():
    page = (ROOT / 'configs/finetune/README.md').read_text()
    table = re.findall(r'\]\((\S+\.py)\)', page)
    assert sorted(table) == sorted(path.name for path in (ROOT / 'configs/finetune').glob('*.py'))
    for path in re.findall(r'configs/\w+/[\w.-]+\.py', page):
        assert (ROOT / path).is_file()
