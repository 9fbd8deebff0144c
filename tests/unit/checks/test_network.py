"""What building a network and one step of it tell: weights, loss, memory, room for checkpoints."""

import io
import shutil
from types import SimpleNamespace

import pytest
import torch
from gcp_mm.checks.checkpoints import load_checkpoints, pretrained_modules
from gcp_mm.checks.disk import checkpoint_bytes, checkpoints_kept
from gcp_mm.checks.finding import Finding
from gcp_mm.checks.memory import GIB, check_memory, optimizer_bytes, saved_bytes
from gcp_mm.checks.sample import image_size
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from gcp_mm.checks import check_disk
from gcp_mm.checks.network import Trial
from gcp_mm.checks.run import all_checks, run_check
from gcp_mm.hub import resolve_config
from tests.helpers.runs import CLS

SGD = dict(type='SGD', lr=0.1, momentum=0.9)
FLOAT = 4  # bytes


def config(optimizer=SGD, **options):
    return Config(
        dict(
            work_dir='work_dirs/none',
            optim_wrapper=dict(optimizer=optimizer),
            train_cfg=dict(max_epochs=10),
            train_dataloader=dict(batch_size=32),
            **options,
        )
    )


def test_saved_tensors_of_a_small_network():
    """Linear keeps its input; ReLU its output, as the next Linear does; a product its factor."""
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    images = torch.randn(10, 8)
    with saved_bytes(network) as saved:
        output = network(images)
        output = output * output.detach().exp()
    kept = 10 * 8 + 10 * 16 + 10 * 4  # input, ReLU's output, the factor without a gradient
    assert sum(saved.values()) == FLOAT * kept
    output.sum().backward()  # as ever
    assert network[0].weight.grad is not None


def test_nothing_is_saved_without_gradients():
    network = nn.Linear(8, 16).requires_grad_(False)
    with saved_bytes(network) as saved:
        network(torch.randn(10, 8))
    assert not saved


@pytest.mark.parametrize(
    ('optimizer', 'states'),
    [
        (dict(type='SGD', lr=0.1), 0),
        (SGD, 1),
        (dict(type='Adam'), 2),
        (dict(type='AdamW', amsgrad=True), 3),
    ],
)
def test_states_of_optimizers(optimizer, states):
    network = nn.Linear(100, 50)
    network.bias.requires_grad_(False)
    assert optimizer_bytes(config(optimizer), network) == (states * 100 * 50 * FLOAT, '')


def test_optimizers_that_cannot_be_tried():
    size, note = optimizer_bytes(config(dict(type='SGD', lr=-1)), nn.Linear(2, 2))
    assert size == 0
    assert 'could not be tried (' in note
    assert 'learning rate' in note
    cfg = config()
    cfg.optim_wrapper = dict(generator=dict(optimizer=SGD), constructor='Several')
    assert 'several' in optimizer_bytes(cfg, nn.Linear(2, 2))[1]


def test_estimate_of_the_memory(monkeypatch):
    network = nn.Sequential(nn.Linear(1024, 1024, bias=False), nn.Linear(1024, 1024, bias=False))
    network[0].requires_grad_(False)
    matrix = 2**20 * FLOAT / GIB
    (found,) = check_memory(config(), network, saved=2**26, images=2)
    total = (
        2 + 1 + 1
    ) * matrix + 1  # weights, gradients, momentum; 2^25 bytes of each of 32 images
    assert found.status == 'ok'
    assert (
        f'about {total:.2f} GiB a GPU (weights 0.01, gradients 0.00, optimizer 0.00' in found.text
    )
    assert 'activations of 32 images 1.00' in found.text
    assert 'PyTorch finds no GPU' in found.text or torch.cuda.is_available()

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    for gib, status in ((1.0, 'warning'), (1.1, 'ok')):
        monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda gib=gib: (0, int(gib * GIB)))
        (found,) = check_memory(config(), network, saved=2**26, images=2)
        assert found.status == status
        assert f'the GPU has {gib:.2f} GiB' in found.text
        assert ('lower train_dataloader.batch_size' in found.text) == (status == 'warning')


@pytest.mark.parametrize(
    ('hook', 'number'),
    [
        (dict(), 10),  # the Runner's own, after each epoch
        (dict(interval=1), 10),
        (dict(interval=3), 4),  # 3, 6, 9 and the last
        (dict(interval=1, max_keep_ckpts=3), 4),  # one more while it is replaced
        (dict(interval=5, max_keep_ckpts=3), 2),
        (dict(interval=1, max_keep_ckpts=1, save_best='auto'), 3),
        (dict(interval=1, max_keep_ckpts=1, save_best=['a', 'b']), 4),
        (dict(interval=100, by_epoch=False), None),
        (dict(interval=100, by_epoch=False, max_keep_ckpts=2), 2),
        (dict(type='CheckpointHook'), 1),
    ],
)
def test_number_of_checkpoints(hook, number):
    assert checkpoints_kept(config(), hook) == number


@pytest.mark.parametrize('save_optimizer', [True, False])
def test_size_of_a_checkpoint(save_optimizer):
    network = nn.Sequential(nn.Linear(500, 500), nn.BatchNorm1d(500), nn.Linear(500, 500))
    network[2].requires_grad_(False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.randn(4, 500)).sum().backward()
    optimizer.step()
    content = dict(state_dict=network.state_dict())
    if save_optimizer:
        content['optimizer'] = optimizer.state_dict()
    file = io.BytesIO()
    torch.save(content, file)
    size, note = checkpoint_bytes(config(), dict(save_optimizer=save_optimizer), network)
    assert size == pytest.approx(len(file.getvalue()), rel=0.01)
    assert note == ''
    ema = config(custom_hooks=[dict(type='EMAHook')])
    more = checkpoint_bytes(ema, dict(save_optimizer=save_optimizer), network)[0] - size
    assert more == size - save_optimizer * FLOAT * (500 * 500 + 3 * 500)


def disk(monkeypatch, free, cfg):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=free))
    network = nn.Linear(2**20, 1, bias=False)  # 4 MiB, and as much momentum
    return check_disk(cfg, network)


def test_room_on_the_disk(monkeypatch, tmp_path):
    cfg = config(default_hooks=dict(checkpoint=dict(interval=1, max_keep_ckpts=4)))
    cfg.work_dir = str(tmp_path / 'not/yet')
    size = 2 * 2**22
    (found,) = disk(monkeypatch, 5 * size, cfg)
    assert found.status == 'ok'
    assert found.text == (
        f'5 checkpoints of about 0.01 GiB at once, and 0.04 GiB are free on the disk of {tmp_path}'
    )
    (found,) = disk(monkeypatch, 5 * size - 1, cfg)
    assert found.status == 'warning'
    assert 'make room, set work_dir to a folder of another disk, or default_hooks' in found.text
    disk(monkeypatch, 2 * size, cfg)
    with pytest.raises(ValueError, match='make room, or set work_dir'):
        disk(monkeypatch, 2 * size - 1, cfg)


def test_checkpoints_that_are_there_are_replaced(monkeypatch, tmp_path):
    cfg = config(default_hooks=dict(checkpoint=dict(interval=1, max_keep_ckpts=1)))
    cfg.work_dir = str(tmp_path)
    with pytest.raises(ValueError, match='make room'):
        disk(monkeypatch, 2**23, cfg)
    (tmp_path / 'epoch_1.pth').write_bytes(bytes(2**23))
    assert disk(monkeypatch, 2**23, cfg)[0].status == 'ok'


@pytest.mark.parametrize('hook', [None, dict(out_dir='s3://bucket')])
def test_no_checkpoint_on_this_disk(monkeypatch, hook):
    (found,) = disk(monkeypatch, 0, config(default_hooks=dict(checkpoint=hook)))
    assert found == Finding('skipped', 'no checkpoint goes to a local disk')


def trunk(depth=18, kind='GCPResNet'):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(type=kind, depth=depth))


def load(kind, path, **options):
    model = BaseModule()
    model.backbone = trunk(kind=kind)
    model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(path), **options)
    return model, load_checkpoints(model, pretrained_modules(model))


def test_trunk_that_fits_is_loaded(tmp_path):
    source = trunk()
    torch.save({f'backbone.{key}': w for key, w in source.state_dict().items()}, tmp_path / 'a.pth')
    model, (found,) = load('GCPResNet', tmp_path / 'a.pth', prefix='backbone.')
    number = len(source.state_dict())
    assert found == Finding('ok', f'backbone: all {number} tensors come from {tmp_path}/a.pth')
    assert torch.equal(model.backbone.conv1.weight, source.conv1.weight)
    with pytest.raises(ValueError, match=r'^backbone: .*does under prefix'):
        load('GCPResNet', tmp_path / 'a.pth')


def test_mismatch_is_an_error_where_the_run_raises(tmp_path):
    torch.save(trunk(34).state_dict(), tmp_path / 'r34.pth')
    with pytest.raises(ValueError, match=r'unexpected keys: layer1\.2'):
        load('GCPResNet', tmp_path / 'r34.pth')
    _, (found,) = load('ResNet', tmp_path / 'r34.pth')
    assert found.status == 'warning'
    assert found.text.startswith("backbone: checkpoint '")
    assert found.text.endswith('mmengine leaves out what differs')


def test_load_from_and_addresses(tmp_path):
    model, (found,) = load('ResNet', 'torchvision://resnet18')
    assert found.text == 'backbone: torchvision://resnet18 is not downloaded for this'
    assert found.status == 'skipped'
    torch.save(model.state_dict(), tmp_path / 'a.pth')
    (found,) = load_checkpoints(model, [], str(tmp_path / 'a.pth'))
    assert found.text.startswith('the network: all ')
    assert load_checkpoints(model, [])[0].status == 'skipped'


@pytest.mark.parametrize(
    ('scope', 'steps', 'size'),
    [
        ('mmpretrain', [], (224, 224)),
        ('mmpretrain', [dict(scale=256), dict(crop_size=64)], (64, 64)),
        ('mmpretrain', [dict(scale=(320, 160))], (160, 320)),
        ('mmdet', [], (800, 1333)),
        ('mmdet', [dict(scale=(1000, 600), keep_ratio=True), dict(prob=0.5)], (600, 1000)),
        ('mmdet', [dict(scale=(600, 1000))], (600, 1000)),
        ('mmdet', [dict(scales=[(1333, 640), (1333, 800)])], (800, 1333)),
    ],
)
def test_size_of_random_images(scope, steps, size):
    loader = dict(dataset=dict(type='RepeatDataset', dataset=dict(pipeline=steps)))
    assert image_size(Config(dict(default_scope=scope, train_dataloader=loader))) == size


def test_checkpoints_are_left_for_later():
    """An absent one, or one far away, does not keep the network from being built."""
    cfg = resolve_config('resnet18-gcp_1xb10-3e_digits-5-9')
    trial = Trial()
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        trial.build(cfg)
    found = [(name, init_cfg['prefix']) for name, _, init_cfg in trial.pretrained]
    assert found == [('backbone', 'backbone.'), ('neck', 'neck.')]


def test_a_network_that_does_not_build():
    """Each later check says that there is none; the earlier ones are made all the same."""
    cfg = resolve_config(CLS)
    cfg.model.backbone.depth = 19
    found = {name: run_check(check) for name, check in all_checks(cfg, 1)}
    (error,) = found['network']
    assert (error.status, error.text[:11]) == ('error', 'ValueError:')
    assert 'depth: expected one of' in error.text
    for name in ('trunk', 'loss', 'memory', 'disk'):
        assert [finding.status for finding in found[name]] == ['skipped']
    assert found['schedule'][0].status == 'ok'
