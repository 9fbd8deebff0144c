"""Bad and unusual images: a run goes on or stops as docs/guides/bad_data.md says."""

import copy
import functools
import json
import os
import re
from collections import Counter

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from gcp_mm.checks import build_dataloader
from gcp_mm.checks.context import Context
from gcp_mm.checks.data import check_evaluation
from gcp_mm.data import LoadCheckedImage
from gcp_mm.hub import resolve_config
from tests.helpers.bad_data import no_worker_is_left, outcome, row
from tests.helpers.bad_images import BROKEN, CLOSED, HEIGHT, JPEG, UNUSUAL, WIDTH

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


def make_loader(kind, root, content=JPEG, suffix='.jpg', size=(HEIGHT, WIDTH), split='train'):
    """Config and scope of a dataloader, of `kind`, of good images and one with `content`."""
    files = {f'{number}.jpg': JPEG for number in range(1, NUMBER)}
    files[f'bad{suffix}'] = content
    folder = 'train2017' if kind == 'CocoDataset' else 'train/n01440764'
    for name, data in files.items():
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    cfg = copy.deepcopy(stock_config(kind))
    loader = cfg[f'{split}_dataloader']
    pipeline = loader.dataset.pipeline
    if kind == 'CocoDataset':
        names = enumerate(sorted(files))
        images = [dict(id=i, file_name=name, height=HEIGHT, width=WIDTH) for i, name in names]
        images[-1].update(height=size[0], width=size[1])
        annotation = dict(bbox=[0, 0, 9, 9], area=81, iscrowd=0, category_id=5)
        annotations = [dict(annotation, id=i, image_id=i) for i in range(NUMBER)]
        content = dict(images=images, annotations=annotations)
        content['categories'] = [dict(id=5, name='thing')]
        (root / 'list.json').write_text(json.dumps(content))
        # Every image: those of 1 pixel are below the stock minimum
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


def read(loader, scope, epochs=1, vanishing=None):
    """Every sample of some epochs, as (file name, image), read by worker processes.

    A file that is `vanishing` does so once the list of images is made.
    """
    with DefaultScope.overwrite_default_scope(scope):
        built = build_dataloader(Runner.build_dataloader, loader, seed=0)
        if vanishing:
            vanishing.unlink()
        samples = []
        for _ in range(epochs):
            for batch in built:
                for sample, image in zip(batch['data_samples'], batch['inputs'], strict=True):
                    samples.append((os.path.basename(sample.img_path), image))
    return samples


def reason(text):
    """An error's type and why an image cannot be used, without its path and the remedy."""
    kind, _, message = text.partition(': ')
    assert f' {kind}: image ' in f' {message}' or message.startswith('image '), text
    assert 'docs/guides/bad_data.md' in message
    return f'{kind}: {message.split("cannot be used: ")[1].split(". Replace")[0]}'


INPUTS = [*BROKEN, 'file that vanished', 'unreadable file']
EVERYWHERE = {'JPEG cut in half', 'file of 0 bytes', 'file that vanished'}  # the others take turns


@pytest.mark.parametrize('what', INPUTS)
def test_broken_image(what, tmp_path, log, record_property):
    """Stops training, validation and test by its name; 'skip' trains on the others."""
    if what == 'unreadable file' and os.geteuid() == 0:
        pytest.skip('root reads every file')
    content, suffix = BROKEN.get(what, (JPEG, '.jpg'))
    another = list(CONFIGS)[INPUTS.index(what) % len(CONFIGS)]
    kinds = CONFIGS if what in EVERYWHERE else [another]
    observed = []
    for kind, split in (*((kind, 'train') for kind in kinds), (another, 'val')):
        loader, scope = make_loader(kind, tmp_path / kind / split, content, suffix, split=split)
        file = spoil(what, tmp_path / kind / split)
        text = outcome(read, loader, scope, vanishing=file if 'vanished' in what else None)
        assert f"image '{file}' cannot be used: " in text
        observed.append(reason(text))
    assert len(set(observed)) == 1
    assert ('truncated' in observed[0]) == ('JPEG' in what or 'cut' in what)
    assert no_worker_is_left()
    error = 'FileNotFoundError' if 'vanished' in what else 'ValueError'
    assert observed[0].startswith(f'{error}: ')

    loader, scope = make_loader(another, tmp_path / 'skip', content, suffix)
    file = spoil(what, tmp_path / 'skip')
    loader.persistent_workers = True
    loader.dataset.pipeline[0].update(type='LoadCheckedImage', on_error='skip')
    samples = read(loader, scope, epochs=2, vanishing=file if 'vanished' in what else None)
    names = Counter(name for name, _ in samples)
    assert sum(names.values()) == 2 * NUMBER
    assert file.name not in names
    warnings = log().count('skipped: ')
    assert warnings == 1
    assert f"skipped: image '{file}' cannot be used" in log()
    observed.append(f'skip: {sum(names.values())} images in 2 epochs, {warnings} warning')
    expected = f'{error} by its name; with skip, one warning and other images'
    record_property(*row(what, expected, observed))


def spoil(what, root):
    """The bad file of a dataset, after what its content does not make bad."""
    (file,) = root.rglob('bad.*')
    if what == 'unreadable file':
        file.chmod(0)
    return file


@pytest.mark.parametrize('what', UNUSUAL)
def test_unusual_image(what, tmp_path, record_property):
    """Is used like any other, in 8-bit colors; its pixels are those that were written."""
    content, suffix, expected = UNUSUAL[what]
    observed = []
    kinds = CONFIGS if 'EXIF' in what else [list(CONFIGS)[list(UNUSUAL).index(what) % len(CONFIGS)]]
    for kind in kinds:
        root = tmp_path / kind
        loader, scope = make_loader(kind, root, content, suffix, size=expected.shape[:2])
        images = dict(outcome(read, loader, scope))
        assert images[f'bad{suffix}'].shape[0] == 3
        # What the pipeline makes of it is random; what it gets is compared
        (file,) = root.rglob(f'bad{suffix}')
        image = LoadCheckedImage()(dict(img_path=str(file)))['img'][..., ::-1]
        difference = np.abs(image.astype(float) - expected).mean()
        assert difference < 1.5  # JPEG's, of 255
        height, width, channels = image.shape
        observed.append(f'used, {width}x{height}, {channels} channels of {image.dtype}')
    assert observed[0].endswith('3 channels of uint8')
    record_property(*row(what, 'used as 8-bit colors', observed))


def test_jpeg_whose_gap_is_closed(tmp_path, record_property):
    """The limit: libjpeg fills in gray, and neither OpenCV nor Pillow says so."""
    loader, scope = make_loader('ImageNet', tmp_path, CLOSED)
    images = dict(read(loader, scope))
    assert 'bad.jpg' in images
    image = LoadCheckedImage().load(dict(img_path=str(next(tmp_path.rglob('bad.jpg')))))
    gray = (image[-1] == 128).all()
    assert gray
    observed = 'used, its end gray' if gray else 'used'
    record_property(
        *row('JPEG damaged in between, with its end', 'used: no decoder tells', observed)
    )


def test_image_of_another_size(tmp_path, record_property):
    loader, scope = make_loader('CocoDataset', tmp_path, size=(HEIGHT, WIDTH + 1))
    text = outcome(read, loader, scope)
    assert f'it has {WIDTH}x{HEIGHT} pixels, and its annotations say {WIDTH + 1}x{HEIGHT}' in text
    record_property(
        *row(
            'image of another size than its annotations say', 'ValueError by its name', reason(text)
        )
    )


def test_orientation_that_the_annotations_do_not_follow(tmp_path):
    content, suffix, _ = UNUSUAL['JPEG turned by EXIF']
    loader, scope = make_loader('CocoDataset', tmp_path, content, suffix)
    assert 'EXIF' in outcome(read, loader, scope)
    loader.dataset.pipeline[0].color_type = 'color_ignore_orientation'
    assert len(read(loader, scope)) == NUMBER


def test_skip_is_for_training_alone(tmp_path, record_property):
    loader, _ = make_loader('ImageNet', tmp_path, b'', split='val')
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
    assert re.search(r'images +ok +all \d+ images can be used', capsys.readouterr().out)
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
    assert re.fullmatch(r'2 of \d+ images cannot be used', lines[2])
