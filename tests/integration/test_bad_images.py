"""Bad and unusual images: a run goes on or stops as docs/guides/bad_data.md says."""

import copy
import functools
import json
import os
import re

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from gcp_mm.checks import build_dataloader
from gcp_mm.checks.context import Context
from gcp_mm.checks.data import check_evaluation
from gcp_mm.hub import resolve_config
from tests.helpers.bad_data import no_worker_is_left, outcome, row
from tests.helpers.bad_images import HEIGHT, JPEG, TURNED, WIDTH
from tests.helpers.runs import CLS, NARROW

pytestmark = pytest.mark.usefixtures('short_patience')
# The dataset classes, each in the config of this project that has the usual pipeline for it
CONFIGS = {
    'CustomDataset': 'resnet50-gcp_1xb10-100e_cub',
    'ImageNet': 'resnet50-gcp_8xb32-lradju_in1k',
    'CocoDataset': 'faster-rcnn_r50-gcp-m_fpn_1x_coco',
}
NUMBER = 6  # images of a dataset, one of them bad


@functools.cache
def stock_config(kind):
    return resolve_config(CONFIGS[kind])


def make_loader(kind, root, content=b'', split='train'):
    """Config and scope of a dataloader, of `kind`, of good images and one with `content`."""
    files = {f'{number}.jpg': JPEG for number in range(1, NUMBER)}
    files['bad.jpg'] = content
    folder = 'train2017' if kind == 'CocoDataset' else 'train/n01440764'
    for name, data in files.items():
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    cfg = copy.deepcopy(stock_config(kind))
    loader = cfg[f'{split}_dataloader']
    pipeline = loader.dataset.pipeline
    if kind == 'CocoDataset':
        names = enumerate(files)
        images = [dict(id=i, file_name=name, height=HEIGHT, width=WIDTH) for i, name in names]
        annotation = dict(bbox=[0, 0, 9, 9], area=81, iscrowd=0, category_id=5)
        annotations = [dict(annotation, id=i, image_id=i) for i in range(NUMBER)]
        content = dict(images=images, annotations=annotations)
        content['categories'] = [dict(id=5, name='thing')]
        (root / 'list.json').write_text(json.dumps(content))
        dataset = dict(type=kind, data_prefix=dict(img=folder), ann_file='list.json')
        dataset.update(metainfo=dict(classes=('thing',)), test_mode=split != 'train')
    elif kind == 'ImageNet':
        (root / 'list.txt').write_text(''.join(f'n01440764/{name} 0\n' for name in files))
        dataset = dict(type=kind, split='train', ann_file='list.txt')
    else:
        dataset = dict(type=kind, data_prefix='train')
    loader.update(batch_size=2, num_workers=1, persistent_workers=False, timeout=60)
    loader.setdefault('collate_fn', dict(type='pseudo_collate'))
    loader.dataset = dict(dataset, data_root=str(root), pipeline=pipeline)
    return loader, cfg.default_scope


def read(loader, scope, epochs=1):
    """File names of every sample of some epochs, read by worker processes."""
    with DefaultScope.overwrite_default_scope(scope):
        built = build_dataloader(Runner.build_dataloader, loader, seed=0)
        return [
            os.path.basename(sample.img_path)
            for _ in range(epochs)
            for batch in built
            for sample in batch['data_samples']
        ]


@pytest.mark.parametrize('kind', CONFIGS)
def test_broken_image(kind, tmp_path, log):
    """Stops training and validation by its name; 'skip' trains on the others."""
    for split in ('train', 'val'):
        loader, scope = make_loader(kind, tmp_path / split, JPEG[: len(JPEG) // 2], split)
        (file,) = (tmp_path / split).rglob('bad.jpg')
        text = outcome(read, loader, scope)
        assert f"ValueError: image '{file}' cannot be used: truncated" in text
        assert no_worker_is_left()

    loader, scope = make_loader(kind, tmp_path / 'skip')
    (file,) = (tmp_path / 'skip').rglob('bad.jpg')
    loader.persistent_workers = True
    loader.dataset.pipeline[0].update(type='LoadCheckedImage', on_error='skip')
    names = read(loader, scope, epochs=2)
    assert len(names) == 2 * NUMBER
    assert 'bad.jpg' not in names
    assert log().count('skipped: ') == 1
    assert f"skipped: image '{file}' cannot be used" in log()


def test_a_run_stops_at_a_bad_image_or_skips_it(few_digits, call_tool):
    (few_digits / 'train/3/bad.png').write_bytes(b'')
    command = ['tools/train.py', CLS, '--work-dir', few_digits / 'run', '--cfg-options']
    command += [f'{s}_dataloader.dataset.data_root={few_digits}' for s in ('train', 'val')]
    command += [f'{s}_dataloader.num_workers=0' for s in ('train', 'val')]
    command += ['train_dataloader.batch_size=6', 'train_dataloader.dataset.pipeline.1.crop_size=32']
    command += ['train_cfg.max_epochs=1', 'param_scheduler.end=1']
    command += [f'{key}={value}' for key, value in NARROW.items()]
    with pytest.raises(ValueError, match=f"image '{few_digits}/train/3/bad.png' cannot be used"):
        call_tool(*command)
    step = 'train_dataloader.dataset.pipeline.0'
    call_tool(*command, f'{step}.type=LoadCheckedImage', f'{step}.on_error=skip')
    log = max(few_digits.glob('run/*/*.log')).read_text()
    assert 'epoch of 7 steps, batch 6' in log  # 41 images
    assert log.count('skipped: image') == 1
    assert 'Saving checkpoint at 1 epochs' in log
    (dumped,) = few_digits.glob('run/*.py')  # as inferencers find it
    assert Config.fromfile(dumped).val_dataloader.dataset.pipeline[0].type == 'LoadImageFromFile'


def test_orientation_that_the_annotations_do_not_follow(tmp_path):
    loader, scope = make_loader('CocoDataset', tmp_path, TURNED)
    assert 'EXIF' in outcome(read, loader, scope)
    loader.dataset.pipeline[0].color_type = 'color_ignore_orientation'
    assert len(read(loader, scope)) == NUMBER


def test_skip_is_for_training_alone(tmp_path, record_property):
    loader, _ = make_loader('ImageNet', tmp_path, split='val')
    loader.dataset.pipeline[0].update(type='LoadCheckedImage', on_error='skip')
    (found,) = check_evaluation(Context(Config(dict(val_dataloader=loader))))
    assert found.status == 'error'
    text = f'ValueError: {found.text}'
    assert text.startswith("ValueError: val_dataloader: LoadCheckedImage has on_error='skip'")
    record_property(
        *row(
            "on_error='skip' in validation or test", 'ValueError before the run', text.split(',')[0]
        )
    )


def test_command(few_digits, call_tool, capsys):
    """tools/check_data.py --images lists every bad file once."""
    options = ['tools/check_data.py', 'configs/digits/resnet18_1xb64-5e_digits.py', '--images']
    options += ['--workers', 2, '--cfg-options']
    options += [f'{s}_dataloader.dataset.data_root={few_digits}' for s in ('train', 'val', 'test')]
    with pytest.raises(SystemExit) as end:
        call_tool(*options)
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert f'CustomDataset in {few_digits}/train, 40 images of 10 classes' in out
    assert 'ok      all 80 images can be used' in out
    bad = {
        few_digits / 'train/3/bad.jpg': 'truncated: a JPEG without its end',
        few_digits / 'val/5/bad.png': 'the file is empty',
    }
    bad_bytes = [JPEG[:-5], b'']
    for file, content in zip(bad, bad_bytes, strict=True):
        file.write_bytes(content)
    with pytest.raises(SystemExit) as end:
        call_tool(*options)
    assert end.value.code == 1
    out = capsys.readouterr().out
    lines = re.findall(r'images +ERROR +(.*)', out)
    assert lines[:2] == [f'{file}: {why}' for file, why in bad.items()]
    assert lines[2] == '2 of 82 images cannot be used'
    with pytest.raises(SystemExit) as end:
        call_tool(*options, f'train_dataloader.dataset.data_root={few_digits}/gone')
    assert end.value.code == 1
    out = capsys.readouterr().out
    assert 'data        ERROR   train_dataloader.dataset: CustomDataset cannot read its list' in out
    assert f"'{few_digits}/gone/train'" in out
