"""What a run would fail with later is found by trying it."""

import os
import re
from functools import partial

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import METRICS
from torch import nn

from gcp_mm.checks import check_config
from gcp_mm.checks.context import Context
from gcp_mm.checks.network import check_network
from gcp_mm.checks.trial import check_collation, check_metrics, check_step
from gcp_mm.hub import resolve_config
from tests.helpers.checks import findings, texts, tried
from tests.helpers.runs import CLS, ROOT

NARROW = {
    'model.backbone.stem_channels': 8,
    'model.backbone.base_channels': 8,
    'model.neck.in_channels': 64,
    'model.neck.reduction': (16,),
    'model.head.in_channels': 136,
}


def narrow(data_root, **options):
    """A narrow classifier."""
    cfg = resolve_config(str(ROOT / CLS))
    cfg.merge_from_dict(NARROW)
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(data_root)
        cfg[f'{split}_dataloader'].collate_fn = dict(type='default_collate')
    cfg.merge_from_dict(options)
    return cfg


def trial(cfg, *checks, change=lambda network: None):
    """The one finding of each trial of a network, by check; it may be changed once it is built."""

    def changed(context):
        change(context.model)
        return []

    found = tried(cfg, check_network, changed, *checks)[1]
    return {name: each[0] for name, each in found.items() if len(each) == 1}


def test_all_that_is_right(few_digits):
    found = trial(narrow(few_digits), check_metrics, check_step)
    assert {each.status for each in found.values()} == {'ok'}
    assert found['metrics'].text == 'of 2 images: accuracy/top1'
    words = r'loss \d\.\d+; OptimWrapper trains backbone, neck, head'
    assert re.fullmatch(words, found['step'].text)


def test_a_loss_that_is_not_finite(few_digits):
    def spoil(network):
        network.head.fc.weight.data[0, 0] = torch.nan

    found = trial(narrow(few_digits), check_step, change=spoil)['step']
    assert found.status == 'error'
    assert found.text == 'the loss of 2 images of train_dataloader is not finite: loss nan'


def test_a_module_that_asks_how_far_the_training_is(monkeypatch):
    """YOLOX changes the size of its images by it."""

    class Preprocessor(nn.Module):
        def forward(self, data, training):
            assert MessageHub.get_current_instance().get_info('iter') + 1 == 1
            return data

    class Network(BaseModel):
        def __init__(self):
            super().__init__(data_preprocessor=Preprocessor())
            self.head = nn.Linear(3, 1)

        def forward(self, inputs, data_samples=None, mode='loss'):
            return dict(loss=self.head(inputs).mean())

    loader = [dict(inputs=torch.ones(2, 3))]
    monkeypatch.setattr('gcp_mm.checks.trial.small_loader', lambda _: loader)
    MessageHub.get_current_instance().runtime_info.pop('iter', None)
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), train_dataloader={}))
    (found,) = check_step(Context(cfg, model=Network()))
    assert found.text.endswith('OptimWrapper trains head')


@pytest.fixture
def mixed(few_digits):
    """Images of which one has another size, in training and validation."""
    for split in ('train', 'val'):
        file = sorted((few_digits / split / '7').iterdir())[0]
        cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), (40, 48)))
    return narrow(few_digits, **{'train_dataloader.dataset.pipeline': PLAIN})


PLAIN = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
RESIZED = [PLAIN[0], dict(type='Resize', scale=(32, 32)), PLAIN[1]]
CROPPED = [PLAIN[0], dict(type='CenterCrop', crop_size=32), PLAIN[1]]


@pytest.mark.parametrize('level', ['fast', 'network'])
def test_images_of_several_sizes(mixed, level):
    """A batch of the size that it will have: the first two images are alike."""
    found = texts('error', check_collation, mixed, level=level)
    for text, name in zip(found, ('train_dataloader', 'val_dataloader'), strict=True):
        assert text.startswith(f'{name}: 64 images make no batch: ')
        assert f'{name}.dataset.pipeline' in text
        assert "dict(type='Resize'" in text
    for pipeline in (RESIZED, CROPPED):
        for split in ('train', 'val'):
            mixed[f'{split}_dataloader'].dataset.pipeline = pipeline
        assert texts('error', check_collation, mixed, level=level) == []
    mixed.train_dataloader.collate_fn = dict(type='pseudo_collate')
    mixed.train_dataloader.dataset.pipeline = PLAIN
    assert texts('error', check_collation, mixed, level=level) == []


def test_a_size_that_the_transforms_give_takes_no_image(mixed, monkeypatch):
    def small_loader(loader, **_):
        raise AssertionError(loader)

    mixed.train_dataloader.dataset.pipeline = mixed.val_dataloader.dataset.pipeline = RESIZED
    monkeypatch.setattr('gcp_mm.checks.trial.small_loader', small_loader)
    assert findings(check_collation, mixed)[0].status == 'skipped'
    assert len(texts('error', check_collation, mixed, level='network')) == 2


def test_images_of_several_sizes_are_told_once(mixed, tmp_path):
    mixed.work_dir = str(tmp_path / 'run')
    found = [each for each in check_config(mixed, level='network') if each.status == 'error']
    assert [each.check for each in found] == ['collation'] * 2


def test_metrics_of_whole_datasets_are_not_tried(few_digits):
    cfg = narrow(few_digits)
    cfg.val_evaluator = dict(type='MultiDatasetsEvaluator', metrics=[], dataset_prefixes=['a'])
    assert trial(cfg, check_metrics)['metrics'].status == 'skipped'


@METRICS.register_module()
class WritingMetric(BaseMetric):
    def __init__(self, out_file):
        raise AssertionError('was built')

    process = compute_metrics = None


@METRICS.register_module()
class IdleMetric(BaseMetric):
    """Takes the settings of MMDetection's, which stock configs turn off."""

    def __init__(self, format_only, outfile_prefix):
        super().__init__()

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(images=len(results))


def test_metrics_that_write_files_are_left_alone(few_digits):
    cfg = narrow(few_digits)
    cfg.val_evaluator = [dict(type='Accuracy'), dict(type='WritingMetric', out_file='a')]
    found = trial(cfg, check_metrics)['metrics']
    assert (found.status, found.text) == ('skipped', 'they write files')
    cfg.val_evaluator = dict(type='IdleMetric', format_only=False, outfile_prefix=None)
    found = trial(cfg, check_metrics)['metrics']
    assert (found.status, found.text) == ('ok', 'of 2 images: images')


def test_nothing_outside_is_changed(few_digits, tmp_path, monkeypatch):
    hub = MessageHub.get_instance('run')
    hub.update_info('iter', 7)
    folder = tmp_path / 'cwd'
    folder.mkdir()
    cfg = narrow(few_digits)
    monkeypatch.chdir(folder)
    trial(cfg, check_metrics, check_step)
    assert os.listdir(folder) == []
    assert MessageHub.get_current_instance() is hub
    assert hub.runtime_info == dict(iter=7)
    MessageHub._instance_dict.pop('run')


@pytest.mark.parametrize(
    'optim_wrapper',
    [
        dict(accumulative_counts=4, clip_grad=dict(max_norm=1)),
        dict(type='AmpOptimWrapper', loss_scale='dynamic', dtype='bfloat16'),
        dict(type='KFACOptimWrapper'),
    ],
)
def test_steps_of_other_wrappers(optim_wrapper, few_digits):
    cfg = narrow(few_digits)
    cfg.optim_wrapper.update(optim_wrapper)
    assert trial(cfg, check_step)['step'].status == 'ok'


def test_map_of_one_position(few_digits):
    """32 pixels by a stride of 32: the vector is zero, and the loss finite."""
    stride = {'model.backbone.conv5': 'stride', 'train_dataloader.dataset.pipeline': CROP}
    found = trial(narrow(few_digits, **stride), check_step)['step']
    assert found.status == 'error'
    assert found.text.startswith('model.neck pools a map of 1x1, of images of 32x32 pixels')
    assert "conv5='none'" in found.text
    for remedy in ({'model.backbone.conv5': 'none'}, {'train_dataloader.dataset.pipeline': LARGE}):
        cfg = narrow(few_digits, **(stride | remedy))
        assert trial(cfg, check_step)['step'].status == 'ok'


CROP = [PLAIN[0], dict(type='RandomCrop', crop_size=32), PLAIN[1]]
LARGE = [PLAIN[0], dict(type='Resize', scale=(64, 64)), PLAIN[1]]


class Cut(nn.Module):
    def __init__(self, layer, freeze=False):
        super().__init__()
        self.layer = layer.requires_grad_(not freeze)

    def forward(self, *inputs):
        return tuple(x.detach() for x in self.layer(*inputs))


def cut(network, freeze=False):
    network.backbone = Cut(network.backbone, freeze)


@pytest.mark.parametrize(
    ('change', 'status', 'words'),
    [
        (cut, 'warning', 'model.backbone: no gradient reaches it'),
        (partial(cut, freeze=True), 'ok', 'loss '),
        # a layer that starts at zero lets gradients through later
        (lambda network: nn.init.zeros_(network.head.fc.weight), 'ok', 'loss '),
        (lambda network: network.requires_grad_(False), 'error', 'model: no parameter is trained'),
    ],
)
def test_parts_that_a_gradient_reaches(change, status, words, few_digits):
    found = trial(narrow(few_digits), check_step, change=change)['step']
    assert found.status == status
    assert found.text.startswith(words)
