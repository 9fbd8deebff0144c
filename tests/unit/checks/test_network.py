"""What a network tells: its head, checkpoints, a step of it, and room for what it saves."""

import io
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from gcp_mm.checks import check_config, raise_errors
from gcp_mm.checks.context import Context
from gcp_mm.checks.data import check_data
from gcp_mm.checks.network import (
    check_checkpoints,
    check_disk,
    check_head,
    check_loss,
    check_network,
    check_weights,
    checkpoint_bytes,
    checkpoints_kept,
)
from gcp_mm.hub import resolve_config
from tests.helpers.checks import findings, texts, tried
from tests.helpers.runs import CLS

GAP = 'resnet18_1xb64-5e_digits'

SGD = dict(type='SGD', lr=0.1, momentum=0.9)
FLOAT = 4  # bytes


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


def config(optimizer=SGD, hook=None, **options):
    hook = dict(type='CheckpointHook', interval=1) if hook is None else hook
    return Config(
        dict(
            work_dir='work_dirs/none',
            optim_wrapper=dict(optimizer=optimizer),
            train_cfg=dict(max_epochs=10),
            default_hooks=dict(checkpoint=hook and {'type': 'CheckpointHook', **hook}),
            **options,
        )
    )


@pytest.mark.parametrize(
    ('hook', 'number'),
    [
        (dict(interval=1), 10),
        (dict(interval=3), 4),  # 3, 6, 9 and the last
        (dict(interval=1, max_keep_ckpts=3), 4),  # one more while it is replaced
        (dict(interval=5, max_keep_ckpts=3), 2),
        (dict(interval=1, max_keep_ckpts=1, save_best='auto'), 3),
        (dict(interval=1, max_keep_ckpts=1, save_best=['a', 'b'], rule='less'), 4),
        (dict(interval=100, by_epoch=False), None),
        (dict(interval=100, by_epoch=False, max_keep_ckpts=2), 2),
        (dict(type='CheckpointHook'), 1),
    ],
)
def test_number_of_checkpoints(hook, number):
    cfg = config(hook=hook)
    assert checkpoints_kept(cfg) == number
    cfg.pop('default_hooks')
    assert checkpoints_kept(cfg) == 10  # of the Runner itself, after each epoch


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
    hook = dict(interval=1, save_optimizer=save_optimizer)
    size = checkpoint_bytes(config(hook=hook), network)
    assert size == pytest.approx(len(file.getvalue()), rel=0.01)
    ema = config(hook=hook, custom_hooks=[dict(type='EMAHook')])
    more = checkpoint_bytes(ema, network) - size
    assert more == size - save_optimizer * FLOAT * (500 * 500 + 3 * 500)


@pytest.mark.parametrize(
    ('optimizer', 'states'),
    [
        (dict(type='SGD', lr=0.1), 0),
        (SGD, 1),
        (dict(type='AdamW', amsgrad=True), 3),
        (dict(type='SGD', lr=-1), 2),  # cannot be tried
    ],
)
def test_states_of_optimizers(optimizer, states):
    network = nn.Linear(100, 50)
    network.bias.requires_grad_(False)
    weights, bias = 100 * 50 * FLOAT, 50 * FLOAT
    assert checkpoint_bytes(config(optimizer), network) == (1 + states) * weights + bias


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
    cfg = config(hook=hook and {**hook, 'interval': 1})
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


def loss(cfg, root, *checks):
    """What is found of the loss of random images, as the data are not there."""
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(root / 'absent')
    (found,) = tried(cfg, check_data, check_network, *checks, check_loss)[1]['loss']
    return found


def test_loss_of_random_images(tmp_path):
    found = loss(resolve_config(CLS), tmp_path)
    assert re.fullmatch(r'of 2 random images: loss \d\.\d+', found.text)

    def spoil(context):
        context.model.head.fc.weight.data[0, 0] = torch.nan
        return []

    found = loss(resolve_config(CLS), tmp_path, spoil)
    assert found.status == 'error'
    assert found.text.startswith('the loss of 2 random images is not finite: loss nan')


@pytest.mark.parametrize('channels', [1, 3, 5])
@pytest.mark.parametrize('several', [None, 'MultiLabelLinearClsHead', 'MultiTaskHead'])
def test_loss_of_random_images_of_any_channels_and_labels(tmp_path, channels, several):
    cfg = resolve_config(GAP)
    cfg.model.backbone.in_channels = channels
    cfg.data_preprocessor = dict(mean=[120] * channels, std=[60] * channels, num_classes=10)
    if several == 'MultiLabelLinearClsHead':
        cfg.model.head = dict(type=several, num_classes=10, in_channels=512)
    elif several:
        task = dict(type='LinearClsHead', num_classes=2, in_channels=512)
        tasks = dict(a=task, b=dict(type=several, task_heads=dict(c=task)))
        cfg.model.head = dict(type=several, task_heads=tasks)
        pack = dict(type='PackMultiTaskInputs', multi_task_fields=('gt_label',))
        pack['task_handlers'] = dict(b=dict(pack))
        cfg.train_dataloader.dataset.pipeline[-1] = pack
    text = loss(cfg, tmp_path).text
    assert text.startswith('of 2 random images: loss '), text


def test_loss_of_random_objects_of_one_channel(tmp_path):
    pytest.importorskip('mmdet')
    cfg = resolve_config('faster-rcnn_r18-gcp-m_fpn_4e_digits')
    cfg.model.backbone.update(in_channels=1, init_cfg=None)
    cfg.model.data_preprocessor.update(mean=[120], std=[60], bgr_to_rgb=False)
    text = loss(cfg, tmp_path).text
    assert text.startswith('of 2 random images: loss'), text


def test_a_module_that_asks_how_far_the_training_is(monkeypatch):
    """YOLOX changes the size of its images by it."""

    class Preprocessor(nn.Module):
        def forward(self, data, training):
            assert MessageHub.get_current_instance().get_info('iter') + 1 == 1
            return data

    class Network(BaseModel):
        def forward(self, inputs, data_samples=None, mode='loss'):
            return dict(loss=inputs.mean())

    loader = [dict(inputs=torch.ones(2, 3))]
    monkeypatch.setattr('gcp_mm.checks.network.small_loader', lambda _: loader)
    MessageHub.get_current_instance().runtime_info.pop('iter', None)
    network = Network(data_preprocessor=Preprocessor())
    (found,) = check_loss(Context(Config(dict(model=dict(), train_dataloader={})), model=network))
    assert found.text == 'of 2 images of train_dataloader: loss 1'


def test_a_network_that_does_not_build():
    """Each later check says that there is none; the earlier ones are made all the same."""
    cfg = resolve_config(CLS)
    cfg.model.backbone.depth = 19
    cfg.work_dir = 'work_dirs/none'
    found = {finding.check: finding for finding in check_config(cfg, level='network')}
    assert re.match('ValueError: .*depth: expected one of', found['network'].text)
    statuses = [found[name].status for name in ('network', 'weights', 'loss', 'disk', 'schedule')]
    assert statuses == ['error', 'skipped', 'skipped', 'skipped', 'ok']
    with pytest.raises(ValueError, match='depth: expected one of'):
        raise_errors(found.values())


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


def test_what_a_check_raises_is_an_error(tmp_path):
    """An `init_cfg` whose keys are wrong, and a hook that no registry has."""
    torch.save(dict(state_dict={}), tmp_path / 'a.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'), prefx='backbone.')
    cfg = resolve_config(CLS)
    cfg.work_dir = str(tmp_path)
    cfg.model.backbone.init_cfg = init_cfg
    cfg.default_hooks.checkpoint.type = 'Nothing'
    found = check_config(cfg, level='network')
    errors = {finding.check: finding.text for finding in found if finding.status == 'error'}
    assert 'prefx' in errors['weights']
    assert 'Nothing' in errors['disk']


def test_checkpoint_hook_of_another_kind(tmp_path):
    cfg = resolve_config(CLS)
    cfg.work_dir = str(tmp_path)
    cfg.default_hooks.checkpoint = dict(type='IterTimerHook')
    found = check_config(cfg, level='disk', model=nn.Linear(1, 1))
    assert [finding.status for finding in found] == ['skipped']
