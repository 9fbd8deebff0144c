"""What a network tells: its head, its checkpoints, and room for those that it saves."""

import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModule
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from gcp_mm.checks import check_config
from gcp_mm.checks.context import Context
from gcp_mm.checks.network import (
    check_checkpoints,
    check_disk,
    check_head,
    check_network,
    check_weights,
)
from gcp_mm.hub import resolve_config
from tests.helpers.checks import findings, texts, tried
from tests.helpers.runs import CLS


def model(in_channels, reduction=(128,), **neck):
    neck = dict(type='GlobalCovariancePooling', in_channels=512, reduction=reduction, **neck)
    return ConfigDict(neck=neck, head=dict(type='LinearClsHead', in_channels=in_channels))


NECKS = [dict(type='Identity'), dict(model(512).neck, type='mmengine.GlobalCovariancePooling')]


@pytest.mark.parametrize(
    ('model', 'words'),
    [
        *((model(8256), None), (model(8256, (256, 128)), None), (model(131328, ()), None)),
        *((dict(backbone=dict(type='ResNet')), None), (dict(neck=[]), None)),
        (dict(neck=dict(type='FPN', in_channels=[1, 2])), None),
        (model(512), 'model.head.in_channels=512, but .* set model.head.in_channels=8256'),
        (model(512, [256, 128]), 'set model.head.in_channels=8256'),
        (dict(model(512), neck=NECKS), 'set model.head.in_channels=8256'),
        (model(8, (8,), norm_cfg=dict(type='LN2d')), 'in_channels=36'),  # of the config's scope
        *((model(8256, each), 'reduction') for each in ((0,), 256, ('256',))),
    ],
)
def test_head_and_neck(model, words):
    found = texts('error', check_head, Config(dict(default_scope='mmpretrain', model=model)))
    assert len(found) == (words is not None)
    assert not found or re.search(words, found[0])


@pytest.mark.parametrize(
    ('conv5', 'number'), [('none', 1), (None, 1), ('stride', 0), ('maxpool', 0)]
)
def test_stride_of_a_detectors_backbone(conv5, number):
    backbone = dict(type='GCPResNet', depth=18) | (dict(conv5=conv5) if conv5 else {})
    cfg = Config(dict(default_scope='mmdet', model=dict(backbone=backbone)))
    found = texts('warning', check_head, cfg)
    assert len(found) == number
    assert all("conv5='none'" in text and "'maxpool'" in text for text in found)
    cfg.model.backbone.out_indices = (0, 1, 2)
    assert texts('warning', check_head, cfg) == []


def test_pretrained_checkpoint_has_to_exist_for_training_alone():
    cfg = Config(dict(model=dict(backbone=dict(type='GCPResNet', depth=18))))
    init_cfg = dict(type='Pretrained', checkpoint='work_dirs/none.pth')
    cfg.model.backbone.init_cfg = init_cfg
    (text,) = texts('error', check_checkpoints, cfg)
    assert text.startswith("model.backbone.init_cfg.checkpoint: checkpoint 'work_dirs/none.pth' ")
    assert texts('error', check_checkpoints, cfg, 'test') == []
    for empty in ('', None):
        cfg.model.backbone.init_cfg.checkpoint = empty
        assert texts('error', check_checkpoints, cfg) == [
            'model.backbone.init_cfg.checkpoint is empty: set it'
        ]
    cfg.model.backbone.init_cfg.checkpoint = 'torchvision://resnet18'
    assert findings(check_checkpoints, cfg)[0].status == 'ok'


def test_load_from_has_to_exist(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    cfg = Config(dict(model=dict(), load_from=str(path)))
    assert 'epoch_1.pth' in texts('error', check_checkpoints, cfg, 'test')[0]
    torch.save({}, path)
    assert findings(check_checkpoints, cfg, 'test')[0].status == 'ok'


def config(hook=None):
    hook = dict(type='CheckpointHook', interval=1) if hook is None else hook
    return Config(
        dict(
            work_dir='work_dirs/none',
            train_cfg=dict(max_epochs=10),
            default_hooks=dict(checkpoint=hook and {'type': 'CheckpointHook', **hook}),
        )
    )


SIZE = 2 * 2**22  # of a checkpoint of 4 MiB of weights, and as much momentum


@pytest.mark.parametrize(
    ('hook', 'free', 'status', 'words'),
    [
        (dict(max_keep_ckpts=4), 5 * SIZE, 'ok', '5 checkpoints of about 0.01 GiB at once'),
        (dict(max_keep_ckpts=4), 5 * SIZE - 1, 'warning', 'max_keep_ckpts=1'),
        (dict(max_keep_ckpts=4), 2 * SIZE, 'warning', 'set work_dir'),
        (dict(max_keep_ckpts=4), 2 * SIZE - 1, 'error', 'set work_dir'),
        # one of this run is there, which is replaced, and one of another
        (dict(max_keep_ckpts=1, out_dir='{}/out'), SIZE, 'ok', '2 checkpoints'),
        (dict(max_keep_ckpts=1, out_dir='{}/out'), SIZE - 1, 'error', '2 checkpoints'),
        (dict(interval=3), 4 * SIZE, 'ok', '4 checkpoints'),  # 3, 6, 9 and the last
        (dict(interval=3, save_optimizer=False), 2 * SIZE, 'ok', '4 checkpoints'),
        (dict(max_keep_ckpts=20), 10 * SIZE, 'ok', '10 checkpoints'),
        (dict(by_epoch=False), 0, 'skipped', 'is not known'),
        (dict(by_epoch=False, max_keep_ckpts=2), 3 * SIZE, 'ok', '3 checkpoints'),
        (dict(out_dir='s3://bucket'), 0, 'skipped', 'no checkpoint goes to a local disk'),
        (False, 0, 'skipped', 'no checkpoint goes to a local disk'),
    ],
)
def test_room_on_the_disk(monkeypatch, tmp_path, hook, free, status, words):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=free))
    folder = tmp_path / 'out/run'
    folder.mkdir(parents=True)
    for name in ('epoch_1.pth', 'of_another.pth'):
        (folder / name).write_bytes(bytes(SIZE))
    cfg = config(hook=hook and {'interval': 1, **hook})
    cfg.work_dir = f'{tmp_path}/run'
    if hook and 'out_dir' in hook:
        cfg.default_hooks.checkpoint.out_dir = hook['out_dir'].format(tmp_path)
    (found,) = check_disk(Context(cfg, model=nn.Linear(2**20, 1, bias=False)))
    assert found.status == status
    assert words in found.text


def test_disk_without_a_network():
    assert check_disk(Context(config()))[0].text == 'the network is not built'


def backbone(depth=18, kind='GCPResNet'):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(type=kind, depth=depth))


def load(kind, path, load_from=None, **options):
    network = BaseModule()
    network.backbone = backbone(kind=kind)
    init_cfg = dict(type='Pretrained', checkpoint=str(path), **options)
    pretrained = [('backbone', network.backbone, init_cfg)] if path else []
    context = Context(Config(dict(load_from=load_from)), model=network, pretrained=pretrained)
    (found,) = check_weights(context)
    return network, (found.status, found.text)


def test_backbone_that_fits_is_loaded(tmp_path):
    weights = backbone().state_dict()
    torch.save({f'backbone.{key}': w for key, w in weights.items()}, tmp_path / 'a.pth')
    network, found = load('GCPResNet', tmp_path / 'a.pth', prefix='backbone.')
    assert found == ('ok', f'backbone: all {len(weights)} tensors come from {tmp_path}/a.pth')
    assert torch.equal(network.backbone.conv1.weight, weights['conv1.weight'])
    _, (status, text) = load('GCPResNet', tmp_path / 'a.pth')
    assert status == 'error'
    assert re.match(r'backbone: .*does under prefix', text)


def test_mismatch_is_an_error_where_the_run_raises(tmp_path):
    torch.save(backbone(34).state_dict(), tmp_path / 'r34.pth')
    _, (status, text) = load('GCPResNet', tmp_path / 'r34.pth')
    assert status == 'error'
    assert 'unexpected keys: layer1.2' in text
    _, (status, text) = load('ResNet', tmp_path / 'r34.pth')
    assert status == 'warning'
    assert text.startswith("backbone: ValueError: checkpoint '")
    assert text.endswith('mmengine loads 120 tensors, those alike')


@pytest.mark.parametrize('state', [{'conv.weight': torch.zeros(1)}, {'conv1.weight': [1]}, [1]])
def test_checkpoint_of_which_nothing_matches_is_an_error(tmp_path, state):
    """The network would train from random weights."""
    torch.save(state, tmp_path / 'a.pth')
    assert load('ResNet', None, str(tmp_path / 'a.pth'))[1][0] == 'error'
    assert load('ResNet', tmp_path / 'a.pth')[1][0] == 'error'
    torch.save(
        dict(trunk=1) | {f'trunk.{k}': w for k, w in backbone().state_dict().items()},
        tmp_path / 'a.pth',
    )
    assert load('ResNet', tmp_path / 'a.pth')[1][0] == 'error'


def test_load_from_and_addresses(tmp_path):
    network, found = load('ResNet', 'torchvision://resnet18')
    assert found == ('skipped', 'backbone: torchvision://resnet18 is not downloaded for this')
    torch.save(network.state_dict(), tmp_path / 'a.pth')
    assert load('ResNet', None, str(tmp_path / 'a.pth'))[1][1].startswith('the network: all ')
    assert load('ResNet', None, str(tmp_path / 'none.pth'))[1][0] == 'error'
    assert load('ResNet', None)[1][0] == 'skipped'


def test_checkpoints_are_left_for_later():
    """An absent one, or one far away, does not keep the network from being built."""
    context, found = tried(resolve_config('resnet18-gcp_1xb10-3e_digits-5-9'), check_network)
    assert found['network'][0].status == 'ok'
    prefixes = [(name, init_cfg['prefix']) for name, _, init_cfg in context.pretrained]
    assert prefixes == [('backbone', 'backbone.'), ('neck', 'neck.')]


@pytest.mark.parametrize(
    ('backbone', 'leading'),
    [
        (dict(type='VisionTransformer'), 1),
        (dict(type='VisionTransformer', with_cls_token=False), 0),
        (dict(type='DistilledVisionTransformer'), 2),
    ],
)
@pytest.mark.parametrize('class_tokens', [0, 1, 2])
def test_class_tokens_are_those_of_the_backbone(backbone, leading, class_tokens):
    options = dict(arch='deit-t', img_size=32, out_type='raw')
    head = dict(type='SoTHead', num_classes=3, in_channels=192, class_tokens=class_tokens)
    model = dict(type='ImageClassifier', backbone=backbone | options, head=head)
    (found,) = findings(check_network, Config(dict(default_scope='mmpretrain', model=model)))
    if class_tokens == leading:
        assert found.status == 'ok'
    else:
        assert found.status == 'error'
        assert f'model.head.class_tokens={class_tokens}' in found.text
        assert f'set class_tokens={leading}' in found.text


def test_packages_that_do_not_load_end_it(monkeypatch):
    monkeypatch.setattr('gcp_mm.checks.machine.numpy_error', lambda: 'broken')
    found = check_config(resolve_config(CLS))
    assert {finding.check for finding in found} == {'packages'}


def test_checkpoint_hook_of_another_kind(tmp_path):
    cfg = resolve_config(CLS)
    cfg.work_dir = str(tmp_path)
    cfg.default_hooks.checkpoint = dict(type='IterTimerHook')
    found = check_config(cfg, level='disk', model=nn.Linear(1, 1))
    assert [finding.status for finding in found] == ['skipped']
