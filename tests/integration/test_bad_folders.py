"""Bad folders and lists of images: whole runs go on or stop as docs/guides/bad_data.md says."""

import shutil

import numpy as np
import pytest
from mmengine.config import Config

from gcp_mm.checks import raise_errors
from gcp_mm.checks.data import check_data, check_evaluation
from gcp_mm.checks.dataloaders import check_annotations
from gcp_mm.hub import resolve_config
from gcp_mm.runtime import launch
from tests.helpers.bad_data import REFUSED, no_worker_is_left, outcome, row
from tests.helpers.checks import findings

pytestmark = pytest.mark.usefixtures('short_patience')


def digits_config(root, *, val='val', **pipeline):
    cfg = resolve_config('resnet18_1xb64-5e_digits')
    cfg.train_dataloader.dataset.pipeline[1].crop_size = 32
    cfg.train_dataloader.dataset.pipeline[0].update(pipeline)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=6, num_workers=2, timeout=60)
        loader.update(collate_fn=dict(type='default_collate'))
        loader.dataset.update(data_root=str(root), data_prefix='train' if split == 'train' else val)
    cfg.merge_from_dict({'train_cfg.max_epochs': 1, 'param_scheduler.end': 1})
    cfg.model.backbone.update(stem_channels=8, base_channels=8)
    cfg.model.head.in_channels = 64
    cfg.update(launcher='none', work_dir=str(root / 'run'))
    return cfg


def train(cfg):
    """Losses of the steps of a whole run."""
    losses = []

    def run(runner):
        step = runner.model.train_step

        def recorded(*args, **kwargs):
            values = step(*args, **kwargs)
            losses.append(float(values['loss'].detach()))
            return values

        runner.model.train_step = recorded
        runner.train()

    for check in (check_data, check_annotations, check_evaluation):
        raise_errors(findings(check, cfg))
    launch(cfg, run)
    return losses


@pytest.mark.parametrize('split', ['train', 'val'])
def test_run_stops_at_a_bad_image(split, few_digits):
    (few_digits / split / '3' / 'bad.png').write_bytes(b'')
    text = outcome(train, digits_config(few_digits))
    assert f"image '{few_digits}/{split}/3/bad.png' cannot be used: the file is empty" in text
    assert no_worker_is_left()


def test_run_skips_a_bad_image(few_digits):
    (few_digits / 'train/3/bad.png').write_bytes(b'')
    losses = train(digits_config(few_digits, type='LoadCheckedImage', on_error='skip'))
    assert len(losses) == 7  # 41 images in batches of 6
    assert np.isfinite(losses).all()
    (log,) = few_digits.glob('run/*/*.log')
    assert log.read_text().count('skipped: image') == 1
    (dumped,) = few_digits.glob('run/*.py')  # as inferencers find it
    assert Config.fromfile(dumped).val_dataloader.dataset.pipeline[0].type == 'LoadImageFromFile'


def without_class(root):
    shutil.rmtree(root / 'val/3')


def with_empty_class(root):
    for file in (root / 'train/3').iterdir():
        file.unlink()


def without_images(root):
    for file in (root / 'train').rglob('*.png'):
        file.rename(file.with_suffix('.txt'))


def with_labels(text):
    def change(root):
        (root / 'labels.txt').write_text(text)

    return change


LABELLED = dict(ann_file='labels.txt', data_prefix='train/0')
# {what: (change of the folder, settings of the dataset, words of the message)}
FOLDERS = {
    'class folder missing in validation': (
        without_class,
        {},
        "label 3 is '4', in train_dataloader '3'",
    ),
    'class folder without images': (with_empty_class, {}, None),
    'folder without images': (without_images, {}, 'Found 0 files'),
    'label out of range': (
        with_labels('{0} 10\n{0} 10\n'),
        LABELLED,
        'labels 0 to 9 by model.head.num_classes, got 10 to 10',
    ),
    'empty list of images and labels': (
        with_labels('\n'),
        LABELLED,
        'cannot read its list of images',
    ),
    'batch larger than the data set, drop_last=True': (
        with_labels('{0} 0\n'),
        {**LABELLED, 'drop_last': True},
        'make no whole batch',
    ),
}


@pytest.mark.parametrize('what', FOLDERS)
def test_folders(what, few_digits, record_property):
    change, options, message = FOLDERS[what]
    change(few_digits)
    cfg = digits_config(few_digits)
    dataset = cfg.train_dataloader.dataset
    options = dict(options)
    cfg.train_dataloader.drop_last = options.pop('drop_last', False)
    if options:
        file = sorted(path.name for path in (few_digits / 'train/0').iterdir())[0]
        path = few_digits / 'labels.txt'
        path.write_text(path.read_text().format(file))
        dataset.update(options, metainfo=dict(classes=tuple('0123456789')))
    text = outcome(train, cfg)
    if message is None:
        assert np.isfinite(text).all()
        (log,) = few_digits.glob('run/*/*.log')
        assert 'Found no valid file in the folder 3' in log.read_text()
        observed = f'{len(text)} steps, WARNING Found no valid file in the folder 3'
        expected = 'trains with a warning'
    else:
        assert message in text
        observed = text.replace(f'{few_digits}/', '').split(';')[0]
        assert text.startswith('ValueError: ')
        expected = REFUSED
    assert no_worker_is_left()
    record_property(*row(what, expected, observed))
