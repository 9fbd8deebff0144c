"""Every config builds; those for ImageNet and COCO run and take a step."""

import json
import math
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.config import utils as config_utils
from mmengine.hooks import ParamSchedulerHook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, init_default_scope

from gcp_mm.engine.preflight import check_head

from .coco_files import CATEGORY_IDS, write_coco
from .conftest import ROOT

CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / 'configs').glob('*/*.py')
    if path.parent.name != '_base_'
)
DETECTORS = [path for path in CONFIGS if 'rcnn' in path]
IMAGENET = 'configs/imagenet/resnet50-gcp_8xb32-lradju_in1k.py'
COCO = 'configs/faster_rcnn/faster-rcnn_r50-gcp-m_fpn_1x_coco.py'


def build_model(cfg):
    """Build the model, without the pretrained weights that this test has none of."""
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.pop('init_cfg', None)
    if 'data_preprocessor' in cfg:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return MODELS.build(cfg.model)


def load(path):
    return Config.fromfile(ROOT / path)


@pytest.fixture(scope='module', autouse=True)
def metafiles_are_parsed_once():
    """mmengine parses all of a package's metafiles again for each base that is of the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_utils, 'load', cache(config_utils.load))
        yield


@pytest.mark.parametrize('path', CONFIGS)
def test_config_builds(path):
    cfg = load(path)
    assert 'gcp_mm' in cfg.custom_imports['imports']
    check_head(cfg.model)
    assert sum(p.numel() for p in build_model(cfg).parameters()) > 1e6


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


def test_imagenet_config_takes_a_step():
    from mmpretrain.structures import DataSample

    cfg = load(IMAGENET)
    model = build_model(cfg)
    model.init_weights()
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    samples = [DataSample().set_gt_label(label) for label in (3, 999)]
    (vector,) = model.extract_feat(torch.randn(2, 3, 224, 224))
    assert vector.shape == (2, 256 * 257 // 2)
    check_step(cfg, model, dict(inputs=images, data_samples=samples))


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


# Table 3 of the paper: learning rate in epoch e = 1, 2, ..., and number of epochs. LRnorm is the
# networks' usual schedule, which divides by 10 after every 30 epochs.
RESNET_SCHEDULES = dict(
    lrnorm=(lambda e: 0.1 * 0.1 ** ((e - 1) // 30), 100),
    lrfast=(lambda e: 0.1 * (1 - (e - 1) / 52) ** 11, 30),
    lradju=(lambda e: 0.1 * (1 - (e - 1) / 49) ** 2, 50),
)
RESNETS = [path for path in CONFIGS if path.startswith('configs/imagenet/resnet')]


@pytest.mark.parametrize('path', RESNETS)
def test_training_of_resnets_is_the_papers(path):
    """Section 3 of the paper and Table 3, through mmengine's schedulers over all epochs."""
    cfg = load(path)
    gpus, batch, schedule = re.search(r'_(\d+)xb(\d+)-(\w+)_in1k', path).groups()
    assert cfg.train_dataloader.batch_size == int(batch)
    assert int(gpus) * int(batch) == cfg.auto_scale_lr.base_batch_size == 256
    expected = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4)
    assert {key: cfg.optim_wrapper.optimizer[key] for key in expected} == expected
    assert set(cfg.optim_wrapper) <= {'optimizer', '_scope_'}  # no clipping, no accumulation
    formula, epochs = RESNET_SCHEDULES[schedule]
    assert cfg.train_cfg.max_epochs == epochs
    optim_wrapper = build_optim_wrapper(torch.nn.Linear(1, 1), cfg.optim_wrapper)
    scheduler = PARAM_SCHEDULERS.build(
        cfg.param_scheduler, default_args=dict(optimizer=optim_wrapper)
    )
    for epoch in range(1, epochs + 1):
        (lr,) = optim_wrapper.get_lr()['lr']
        assert lr == pytest.approx(formula(epoch), rel=1e-9, abs=1e-12)
        optim_wrapper.optimizer.step()
        scheduler.step()


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
    model = build_model(load(f'configs/imagenet/{net}_8xb32-lrnorm_in1k.py'))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == PARAMETERS[net]


@pytest.mark.parametrize(
    ('net', 'conv5', 'reduction'),
    [
        ('resnet50', 'stride', None),
        ('resnet50-gcp', 'none', (256,)),
        ('resnet50-gcp-d128', 'none', (128,)),
        ('resnet50-gcp-ds', 'stride', (256,)),
        ('resnet101-gcp-8k', 'none', (256, 128)),
    ],
)
def test_names_say_what_the_networks_are(net, conv5, reduction):
    model = load(f'configs/imagenet/{net}_8xb32-lrnorm_in1k.py').model
    assert model.backbone.conv5 == conv5
    assert model.neck.get('reduction') == reduction
    assert model.head.init_cfg is None


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
        'configs/faster_rcnn/faster-rcnn_r18-gcp-d_fpn_1x_coco.py',
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
    from modelindex.load_model_index import load as load_model_index

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
    check_head(cfg.model)
    model = build_model(cfg).eval()
    (scores,) = model(torch.rand(1, 3, 64, 64))
    assert scores.shape == (1000,)
