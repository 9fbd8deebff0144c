"""The configs train and validate on files in ImageNet's and COCO's own layout."""

import json
import math

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from tests.helpers.configs import IMAGENET, build_model, load, pretraining
from tests.helpers.runs import ROOT

# The 80 of 1 ... 90 that COCO's annotations use
CATEGORY_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
IMAGE_IDS = (139, 285, 632)


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
    name, lr, imagenet, tmp_path, call_tool
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
    call_tool(
        *('tools/train.py', ROOT / f'configs/imagenet/{name}_in1k.py', '--work-dir', tmp_path),
        *('--cfg-options', *loaders, 'train_cfg.max_epochs=1'),
        'default_hooks.checkpoint.interval=-1',
    )
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    train, val = (json.loads(line) for line in log.read_text().splitlines())
    assert train['lr'] == pytest.approx(lr)
    assert train['iter'] == 1
    assert np.isfinite(train['loss'])
    assert val.keys() >= {'accuracy/top1', 'accuracy/top5'}


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    """COCO's files: of three images, two show a person, a toothbrush and a crowd of persons.

    The first and the last category; the crowd's mask is run-length encoded, as COCO's are.
    """
    from mmdet.datasets import CocoDataset

    root = tmp_path_factory.mktemp('data') / 'coco'
    rng = np.random.default_rng(0)
    names = CocoDataset.METAINFO['classes']
    crowd = np.zeros((96, 128), np.uint8)
    crowd[2:20, 90:120] = 1
    changes = np.flatnonzero(np.diff(crowd.flatten('F'))) + 1
    counts = np.diff([0, *changes, crowd.size]).tolist()  # down the columns, from a run of zeros
    objects = [
        dict(category_id=1, bbox=[8, 10, 40, 60], segmentation=[[8, 10, 48, 10, 48, 70]]),
        dict(category_id=90, bbox=[60, 20, 30, 50], segmentation=[[60, 20, 90, 20, 90, 70]]),
        dict(category_id=1, bbox=[90, 2, 30, 18], segmentation=dict(size=[96, 128], counts=counts)),
    ]
    annotations = [
        dict(each, area=500, iscrowd=int(isinstance(each['segmentation'], dict)), image_id=image_id)
        for image_id in IMAGE_IDS[:2]
        for each in objects
    ]
    content = dict(
        images=[dict(id=i, file_name=f'{i:012d}.jpg', width=128, height=96) for i in IMAGE_IDS],
        annotations=[dict(each, id=i) for i, each in enumerate(annotations, 1)],
        categories=[dict(id=i, name=n) for i, n in zip(CATEGORY_IDS, names, strict=True)],
    )
    (root / 'annotations').mkdir(parents=True)
    for split in ('train2017', 'val2017'):
        (root / split).mkdir()
        for image in content['images']:
            pixels = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / image['file_name'])
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(content))
    return root


@pytest.mark.slow
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
    source = build_model(classifier).state_dict()
    torch.save(dict(state_dict=source), tmp_path / 'epoch_100.pth')
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
        assert {box['image_id'] for box in found} == {*IMAGE_IDS}
        assert {box['category_id'] for box in found} <= set(CATEGORY_IDS)
    weights = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=False)['state_dict']
    assert torch.equal(weights['backbone.conv1.weight'], source['backbone.conv1.weight'])  # frozen
    moved = (weights[key] - source[key] for key in source if 'layer4.0.conv' in key)
    assert all(0 < change.abs().max() < 1e-3 for change in moved)
