"""What is written fits the data: sizes, channels, schedules, batches, anchors, files."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, DefaultScope
from PIL import Image
from torch.utils.data import SequentialSampler

from gcp_mm.checks import check_config, learning_rates
from gcp_mm.hub import resolve_config
from gcp_mm.models.gcp_resnet import GCPResNet
from gcp_mm.recipes import write_config
from gcp_mm.recipes.classifier import choose_channels, choose_size
from gcp_mm.recipes.detector import anchor_scale, image_scale, scale_to
from gcp_mm.recipes.schedule import Regime, plan
from gcp_mm.runtime import load_config
from tests.helpers.shapes import write_coco, write_folders


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    write_folders(root / 'shapes', train=6, val=2)
    write_coco(root / 'coco', train=12, val=3)
    return root


@pytest.fixture
def write(shapes, tmp_path):
    def write(name, task, **options):
        files, notes = write_config(shapes / name, task, tmp_path / 'own.py', **options)
        return load_config(str(files[0])), notes

    return write


@pytest.mark.parametrize(
    ('sides', 'size'), [([20, 30], 64), ([90, 300], 96), ([150, 200], 128), ([500, 900], 224)]
)
def test_image_size(sides, size):
    rng = np.random.default_rng(0)
    assert choose_size(rng.integers(*sides, (200, 2)))[0] == size


def test_channels_are_at_most_as_many_for_a_position_as_in_the_paper():
    values = [choose_channels(positions) for positions in range(1, 1000)]
    assert values == sorted(values)
    assert set(values) == {32, 64, 128, 256}
    assert all(v / n <= 256 / 196 for n, v in enumerate(values, 1) if v > 32)
    assert [choose_channels(n * n) for n in (1, 2, 4, 6, 7, 8, 10, 14, 28)] == [
        *(32, 32, 32, 32, 64, 64, 128, 256, 256)
    ]


@pytest.mark.parametrize('images', [4, 17, 60, 360, 5_000, 100_000])
@pytest.mark.parametrize('processes', [1, 2, 8])
@pytest.mark.parametrize('least', [300, 1_000])
def test_schedule(images, processes, least):
    regime = Regime(rate=0.1, batch=16, highest=1, steps=least, epochs=(12, 300))
    if images < 2 * processes:
        with pytest.raises(ValueError, match=rf'{images} images .*--gpus'):
            plan(images, 16, processes, regime)
        return
    schedule = plan(images, 16, processes, regime)
    assert schedule.total == schedule.batch * processes <= images
    assert schedule.batch >= min(4, images // 2 // processes)
    assert schedule.steps == images // schedule.total > 0  # with drop_last
    assert 1 <= schedule.warmup <= schedule.epochs / 10
    assert schedule.epochs % schedule.interval == 0  # the last epoch is validated
    assert schedule.epochs // schedule.interval <= 24
    enough = schedule.epochs * schedule.steps >= least
    assert enough or schedule.epochs >= 300


@pytest.mark.parametrize('images', [8, 12, 13])
def test_batches_of_a_detector(images):
    """As many as the sampler says, of images of both orientations."""
    sides = [(3, 2) if i % 3 else (2, 3) for i in range(images)]
    infos = [dict(width=width, height=height) for width, height in sides]
    sampler = SequentialSampler(infos)
    sampler.dataset = SimpleNamespace(get_data_info=infos.__getitem__)
    options = resolve_config('gcp_mm::_base_/own_detector.py').train_dataloader.batch_sampler
    with DefaultScope.overwrite_default_scope('mmdet'):
        batches = DATA_SAMPLERS.build(dict(options, sampler=sampler, batch_size=4))
    schedule = plan(images, 4, 1, Regime(1, 1, 1, 1, (1, 1)), drop_last=False)
    batches.batch_size = schedule.batch
    sizes = [len(batch) for batch in batches]
    assert len(sizes) == len(batches) == schedule.steps
    assert min(sizes) > 1


def test_scale_and_anchors_of_a_detector():
    sizes = np.array([[100, 140], [150, 120], [90, 130], [60, 50]])
    assert image_scale(sizes) == (160, 128)
    assert image_scale(10 * sizes) == (1333, 800)
    assert scale_to(80, sizes) == (80, 64)
    boxes = np.full((10, 2), 40.0)
    assert [anchor_scale(boxes, factor) for factor in (0.1, 0.5, 1, 3)] == [2, 4, 8, 8]


@pytest.mark.parametrize(('network', 'length'), [('resnet18-gcp', 528), ('resnet50', 2048)])
def test_a_classifier(write, network, length):
    cfg, _ = write('shapes', 'classify', network=network, size=64)
    findings = check_config(cfg)
    assert [f for f in findings if f.status in ('error', 'warning')] == []
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 6
    assert cfg.train_dataloader.dataset.metainfo.classes[0] == 'circle'
    assert cfg.model.head.in_channels == length
    _, rates = learning_rates(cfg, 36)
    peak = rates.index(max(rates))
    assert 0 < peak <= len(rates) / 10
    assert rates[0] < 0.2 * max(rates)
    assert rates[-1] < 0.01 * max(rates)


def test_a_classifier_from_weights(write, tmp_path):
    weights = {f'backbone.{key}': value for key, value in GCPResNet(18).state_dict().items()}
    weights['neck.reduction.0.conv.weight'] = torch.zeros(64, 512, 1, 1)
    torch.save(dict(state_dict=weights), tmp_path / 'r18.pth')
    cfg, _ = write('shapes', 'classify', weights=str(tmp_path / 'r18.pth'))
    assert cfg.model.neck.reduction == (64,)
    assert cfg.model.head.in_channels == 64 * 65 // 2
    assert cfg.model.neck.init_cfg.prefix == 'neck.'
    assert cfg.model.backbone.init_cfg.prefix == 'backbone.'
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys['head.'].lr_mult == 5
    assert cfg.train_pipeline[1].scale == (224, 224)


@pytest.mark.parametrize('task', ['detect', 'segment'])
@pytest.mark.parametrize('pretrained', [True, False])
def test_a_detector(write, tmp_path, task, pretrained):
    checkpoint = None
    if pretrained:
        checkpoint = str(tmp_path / 'r18.pth')
        torch.save(GCPResNet(18).state_dict(), checkpoint)
    cfg, _ = write('coco', task, network='resnet18-gcp-d', weights=checkpoint)
    findings = check_config(cfg)
    assert [f for f in findings if f.status in ('error', 'warning')] == []
    assert cfg.model.backbone.conv5 == 'stride'
    assert cfg.model.roi_head.bbox_head.num_classes == 2
    assert cfg.model.neck.out_channels == 128  # of small images
    assert cfg.train_dataloader.dataset.metainfo.classes == ('circle', 'star')
    frozen = cfg.model.backbone.frozen_stages, cfg.model.backbone.norm_eval
    assert frozen == ((1, True) if pretrained else (-1, False))
    assert cfg.val_evaluator.metric == ('bbox' if task == 'detect' else ['bbox', 'segm'])
    assert ('mask_head' in cfg.model.roi_head) == (task == 'segment')


def test_a_split_of_folders(shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(shapes)
    out = tmp_path / 'own.py'
    files, notes = write_config('shapes/train', 'classify', out, seed=3)
    assert files == (out, tmp_path / 'own_train.txt', tmp_path / 'own_val.txt')
    assert 'seed 3' in ' '.join(notes)
    cfg = load_config(str(out))
    assert [f.text for f in check_config(cfg) if f.status == 'error'] == []
    lines = [line for path in files[1:] for line in path.read_text().splitlines()]
    listed = [line.rsplit(' ', 1)[0] for line in lines]
    on_disk = [p.relative_to('shapes/train').as_posix() for p in Path('shapes/train').rglob('*.*')]
    assert sorted(listed) == sorted(on_disk)


def test_a_split_of_a_coco_file(shapes, tmp_path):
    data = tmp_path / 'data'
    data.mkdir()
    (data / 'images').symlink_to(shapes / 'coco/train')
    (data / 'labels.json').symlink_to(shapes / 'coco/annotations/instances_train.json')
    files, _ = write_config(data, 'detect', tmp_path / 'own.py')
    contents = [json.loads(path.read_text()) for path in files[1:]]
    assert [len(content['images']) for content in contents] == [10, 2]
    assert [f.text for f in check_config(load_config(str(files[0]))) if f.status == 'error'] == []


def test_a_split_is_not_written_over_the_file_that_was_split(shapes, tmp_path):
    shutil.copytree(shapes / 'coco/train', tmp_path / 'images')
    source = shutil.copy(shapes / 'coco/annotations/instances_train.json', tmp_path / 'a_val.json')
    before = source.read_bytes()
    with pytest.raises(ValueError, match='no file in COCO'):
        write_config(tmp_path, 'detect', tmp_path / 'a.py', force=True)
    assert source.read_bytes() == before


def test_gpus_share_the_batch(write):
    cfg, _ = write('shapes', 'classify', processes=2)
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (8, 16)
    rates = {}
    for processes in (1, 2, 3):
        cfg, _ = write('coco', 'detect', processes=processes, force=True)
        batch = cfg.auto_scale_lr.base_batch_size
        assert batch == processes * cfg.train_dataloader.batch_size
        rates[batch] = cfg.optim_wrapper.optimizer.lr
    assert rates == {batch: pytest.approx(min(0.02 * batch / 4, 0.04)) for batch in rates}


def without_images(data):
    for path in data.glob('val/*/*'):
        path.unlink()


def with_objects(**values):
    """Change each object of the validation."""

    def change(data):
        path = data / 'annotations/instances_val.json'
        content = json.loads(path.read_text())
        for annotation in content['annotations']:
            annotation.update(values)
        path.write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    ('name', 'task', 'change', 'words'),
    [
        ('shapes', 'classify', without_images, 'Found 0 files'),
        ('coco', 'detect', with_objects(iscrowd=1), 'nothing to evaluate'),
        ('coco', 'segment', with_objects(segmentation=None), 'segmentation=None'),
    ],
)
def test_what_is_left_to_the_checks(shapes, tmp_path, name, task, change, words):
    data = shutil.copytree(shapes / name, tmp_path / 'data')
    change(data)
    (out, *_), _ = write_config(data, task, tmp_path / 'own.py')
    findings = check_config(load_config(str(out)))
    assert words in ' '.join(each.text for each in findings if each.status == 'error')


@pytest.mark.parametrize(
    ('name', 'task', 'out', 'options', 'words'),
    [
        ('nowhere', 'classify', 'a.py', {}, 'nowhere'),
        ('shapes', 'classify', 'a.txt', {}, r"out: .*a\.txt'"),
        ('shapes', 'segmentation', 'a.py', {}, 'task: .*segmentation'),
        ('shapes', 'classify', 'a.py', dict(network='resnet18-gcp-m'), 'network: .*of a detector'),
        ('shapes', 'classify', 'a.py', dict(size=8), 'size: .*8'),
    ],
)
def test_what_is_refused(shapes, tmp_path, name, task, out, options, words):
    with pytest.raises((FileNotFoundError, ValueError), match=words):
        write_config(shapes / name, task, tmp_path / out, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_by_force_alone(write, tmp_path):
    write('shapes', 'classify')
    before = (tmp_path / 'own.py').read_text()
    with pytest.raises(FileExistsError, match=r'own\.py.*--force'):
        write('shapes', 'classify')
    write('shapes', 'classify', force=True, size=96)
    assert (tmp_path / 'own.py').read_text() != before


def test_the_text_is_short_and_in_lines(write, tmp_path):
    for name, task in (('shapes', 'classify'), ('coco', 'segment')):
        write(name, task, force=True)
        lines = (tmp_path / 'own.py').read_text().splitlines()
        assert len(lines) <= 80
        paths = [line for line in lines if str(tmp_path.parent.parent) in line]
        assert max(map(len, set(lines) - set(paths))) <= 100


def test_five_hundred_classes(tmp_path):
    pixels = Image.new('RGB', (64, 64))
    for split in ('train', 'val'):
        for i in range(500):
            folder = tmp_path / f'data/{split}/class {i:03d}'
            folder.mkdir(parents=True)
            pixels.save(folder / '1.png')
    (out,), _ = write_config(tmp_path / 'data', 'classify', tmp_path / 'own.py')
    cfg = Config.fromfile(out)
    assert len(cfg.classes) == 500
    assert cfg.val_evaluator.topk == (1, 5)
