"""Configs of detectors: their backbones, their training, and runs on files in COCO's layout."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import ParamSchedulerHook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from modelindex.load_model_index import load as load_model_index

from tests.helpers.coco_files import CATEGORY_IDS, write_coco
from tests.helpers.configs import COCO_CONFIGS, DETECTORS, build_model, load, pretraining
from tests.helpers.runs import ROOT

COCO = 'configs/faster_rcnn/faster-rcnn_r50-gcp-m_fpn_1x_coco.py'
# What a detector's name says of conv5: in its backbone's pretraining, in the detector
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
    backbone = build_model(classifier).state_dict()
    torch.save(dict(state_dict=backbone), tmp_path / 'epoch_100.pth')
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
    assert torch.equal(
        weights['backbone.conv1.weight'], backbone['backbone.conv1.weight']
    )  # frozen
    moved = (weights[key] - backbone[key] for key in backbone if 'layer4.0.conv' in key)
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
