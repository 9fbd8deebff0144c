"""Feature vectors: from the network to a file."""

import json
import shutil

import numpy as np
import pytest
import torch
from mmpretrain.apis import FeatureExtractor
from PIL import Image

from gcp_mm import get_model
from gcp_mm.ops import global_covariance_pooling
from gcp_mm.studies.features import extract_features, read_features

CLASSES = ['0', '1', '7']


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return get_model('resnet18-gcp_1xb64-5e_digits')


@pytest.fixture(scope='module')
def folders(digits, tmp_path_factory):
    """Folders of 8 and of 3 digits of three classes, one of the digits a folder deeper."""
    root = tmp_path_factory.mktemp('folders')
    for split, count in (('train', 8), ('val', 3)):
        for name in CLASSES:
            (root / split / name / 'deep').mkdir(parents=True)
            for number, path in enumerate(sorted((digits / split / name).iterdir())[:count]):
                shutil.copy(path, root / split / name / ('deep' if number == 1 else ''))
    return root


@pytest.fixture(scope='module')
def extracted(model, folders, tmp_path_factory):
    """The features of both folders."""
    out = tmp_path_factory.mktemp('features')
    for split in ('train', 'val'):
        extract_features(model, folders / split, out / f'{split}.npy', batch_size=5)
    return {split: read_features(out / f'{split}.npy') for split in ('train', 'val')}


@pytest.mark.parametrize(
    'name',
    [
        'resnet18-gcp_8xb32-lradju_in1k',
        'resnet50-gcp-8k_8xb32-lrnorm_in1k',
        'mobilenet-v2-gcp_4xb48-lradju_in1k',
        'shufflenet-v2-gcp_4xb256-lradju_in1k',
    ],
)
def test_extract_feat_of_gcp_classifiers_is_the_covariance_vector(name):
    net = get_model(name, head=dict(num_classes=2))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        (vector,) = net.extract_feat(x, stage='neck')
        (features,) = net.extract_feat(x, stage='backbone')
        expected = global_covariance_pooling(net.neck.reduction(features), method='newton_schulz')
        torch.testing.assert_close(vector, expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(net.head.fc(vector), net(x))
        torch.testing.assert_close(net.extract_feat(x, stage='pre_logits'), vector)
    assert vector.shape == (2, net.head.in_channels)


@pytest.mark.parametrize('stage', ['neck', 'backbone', 'pre_logits'])
def test_file_holds_what_mmpretrains_extractor_gives(model, folders, tmp_path, stage):
    extract_features(model, folders / 'val', tmp_path / 'x.npy', stage, batch_size=2)
    features = read_features(tmp_path / 'x.npy')
    assert features.classes == CLASSES
    assert features.labels == [0] * 3 + [1] * 3 + [2] * 3
    assert features.stage == stage
    paths = [folders / 'val' / file for file in features.files]
    assert sorted(paths) == sorted((folders / 'val').rglob('*.png'))
    folder_names = [path.relative_to(folders / 'val').parts[0] for path in paths]
    assert [CLASSES.index(name) for name in folder_names] == features.labels
    for path, vector in zip(paths, features.vectors, strict=True):
        (expected,) = FeatureExtractor(model)(str(path), stage=stage)
        expected = expected[-1] if isinstance(expected, tuple) else expected
        expected = expected.mean(dim=(1, 2)) if stage == 'backbone' else expected
        np.testing.assert_allclose(vector, expected, rtol=1e-3, atol=1e-4)


def test_half_precision_halves_the_file(model, folders, extracted, tmp_path):
    out = tmp_path / 'half.npy'
    extract_features(model, folders / 'val', out, dtype='float16')
    half, full = read_features(out).vectors, extracted['val'].vectors
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, full, rtol=1e-3, atol=1e-4)
    assert out.stat().st_size == 128 + half.nbytes == 128 + full.nbytes // 2


def test_a_stopped_run_leaves_nothing(model, folders, tmp_path):
    """At an image cut short, after two batches of four."""
    folder = shutil.copytree(folders / 'train', tmp_path / 'in')
    broken = sorted((folder / '1').glob('*.png'))[2]
    broken.write_bytes(broken.read_bytes()[:-40])
    with pytest.raises(ValueError, match=rf"image '{broken}' .*truncated"):
        extract_features(model, folder, tmp_path / 'x.npy', batch_size=4)
    assert [path.name for path in tmp_path.iterdir()] == ['in']


def test_a_killed_run_leaves_no_complete_file(model, folders, tmp_path, monkeypatch):
    """Before its last step; a left-over of a killed one is written over."""
    with monkeypatch.context() as patch:
        patch.setattr('pathlib.Path.replace', lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extract_features(model, folders / 'val', tmp_path / 'x.npy')
    with pytest.raises(FileNotFoundError):
        read_features(tmp_path / 'x.npy')
    (tmp_path / 'x.partial.npy').write_text('left over')
    extract_features(model, folders / 'val', tmp_path / 'x.npy', force=True)
    assert read_features(tmp_path / 'x.npy').vectors.shape == (9, 8256)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['x.json', 'x.npy']


def test_one_extraction_at_a_time(model, folders, tmp_path, monkeypatch):
    def taken(path, output, wait):
        raise BlockingIOError(11, 'process 7 is writing it', str(output))

    monkeypatch.setattr('gcp_mm._lock._take', taken)
    with pytest.raises(BlockingIOError, match=r'process 7 .*x\.npy'):
        extract_features(model, folders / 'val', tmp_path / 'x.npy')
    assert not list(tmp_path.iterdir())


def test_existing_file_is_kept_without_force(model, folders, tmp_path):
    (tmp_path / 'x.npy').write_text('precious')
    with pytest.raises(FileExistsError, match='--force'):
        extract_features(model, folders / 'val', tmp_path / 'x.npy')
    assert (tmp_path / 'x.npy').read_text() == 'precious'
    extract_features(model, folders / 'val', tmp_path / 'x.npy', force=True)
    assert read_features(tmp_path / 'x.npy').vectors.shape == (9, 8256)
    (tmp_path / 'x.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'x\.json'):
        read_features(tmp_path / 'x.npy')


def test_a_full_disk_is_found_before_the_array_is_made(model, folders, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=9 * 8256 * 4 - 1)
    monkeypatch.setattr('shutil.disk_usage', lambda _: usage)
    with pytest.raises(OSError, match='297,216 bytes and 297,215 are free'):
        extract_features(model, folders / 'val', tmp_path / 'x.npy')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('error', 'words', 'changes'),
    [
        (FileNotFoundError, 'nowhere', dict(folder='nowhere')),
        (ValueError, 'expected .*/<class>/<image>: Found 0 files', dict(folder='0/deep')),
        (ValueError, r"ends in \.npy, got '.*x\.npz'", dict(out='x.npz')),
        (ValueError, "stage: .*got 'head'", dict(stage='head')),
        (TypeError, 'ImageClassifier, got a Linear', dict(model=torch.nn.Linear(1, 1))),
        (ValueError, r'model\.eval\(\)', dict(training=True)),
    ],
)
def test_wrong_arguments_are_refused(model, folders, tmp_path, error, words, changes):
    model = changes.get('model', model).train(changes.get('training', False))
    folder, out = changes.get('folder', '.'), tmp_path / changes.get('out', 'x.npy')
    try:
        with pytest.raises(error, match=words):
            extract_features(model, folders / 'val' / folder, out, changes.get('stage', 'neck'))
    finally:
        model.eval()
    assert not list(tmp_path.iterdir())


def test_images_of_several_sizes_need_batches_of_one(model, folders, tmp_path):
    folder = shutil.copytree(folders / 'val', tmp_path / 'in')
    path = min((folder / '7').glob('*.png'))
    Image.open(path).resize((40, 48)).save(path)
    with pytest.raises(ValueError, match=r'and \(3, 48, 40\).*--batch-size 1'):
        extract_features(model, folder, tmp_path / 'x.npy')
    extract_features(model, folder, tmp_path / 'x.npy', batch_size=1)
    assert np.isfinite(read_features(tmp_path / 'x.npy').vectors).all()


def test_overflow_of_half_precision_is_found(folders, tmp_path):
    net = get_model('resnet18-gcp_1xb64-5e_digits')
    net.neck.reduction[0].norm.weight.data *= 1e7
    with pytest.raises(ValueError, match=r"image '0/.*': .*not finite in float16"):
        extract_features(net, folders / 'val', tmp_path / 'x.npy', dtype='float16')


def test_what_is_not_of_one_extraction_is_refused(extracted, tmp_path):
    with pytest.raises(ValueError, match=r'\.npz'):
        read_features(tmp_path / 'a.npz')
    np.save(tmp_path / 'a.npy', np.zeros((2, 3), np.float32))
    (tmp_path / 'a.json').write_text('{"accuracy": 1}')
    with pytest.raises(ValueError, match='labels'):
        read_features(tmp_path / 'a.npy')
    features = dict(labels=[0], classes=['0'], files=['0'], stage='neck', network='')
    (tmp_path / 'a.json').write_text(json.dumps(features))
    with pytest.raises(ValueError, match='2 vectors beside 1'):
        read_features(tmp_path / 'a.npy')
    for labels in ([0, 1], [0, -1], [0, '0'], [0, True]):
        (tmp_path / 'a.json').write_text(json.dumps(dict(features, labels=labels, files=['0'] * 2)))
        with pytest.raises(ValueError, match=r'a\.json: expected labels in range\(0, 1\)'):
            read_features(tmp_path / 'a.npy')
    (tmp_path / 'a.json').write_text('{')
    with pytest.raises(ValueError, match=r'a\.json.* is not a JSON file'):
        read_features(tmp_path / 'a.npy')


@pytest.mark.parametrize(
    ('shape', 'kind', 'words'),
    [
        ((2**28, 4), '<f4', 'greater than file size|mmap'),
        ((4,), '<f4', r'got float32 of shape \(4,\)'),
        ((), '<f4', r'of shape \(\)'),
        ((1, 2), '<i8', 'got int64'),
        ((1, 2), '|O', 'Python objects'),
    ],
)
def test_arrays_that_are_no_features(tmp_path, shape, kind, words):
    """More rows than the file has bytes for; of other numbers."""
    with open(tmp_path / 'a.npy', 'wb') as file:
        header = dict(descr=kind, fortran_order=False, shape=shape)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(16))
    features = dict(labels=[0], classes=['0'], files=['0'], stage='neck', network='')
    (tmp_path / 'a.json').write_text(json.dumps(features))
    with pytest.raises(ValueError, match=rf'a\.npy.*({words})'):
        read_features(tmp_path / 'a.npy')


def test_an_empty_class_is_refused(model, folders, tmp_path):
    shutil.copytree(folders / 'val', tmp_path / 'val')
    (tmp_path / 'val' / 'zz').mkdir()
    with pytest.raises(ValueError, match="'zz'"):
        extract_features(model, tmp_path / 'val', tmp_path / 'a.npy')


def test_a_description_of_something_else_is_kept(model, folders, tmp_path):
    (tmp_path / 'a.json').write_text('{}')
    with pytest.raises(FileExistsError, match=r'a\.json'):
        extract_features(model, folders / 'val', tmp_path / 'a.npy')
    assert (tmp_path / 'a.json').read_text() == '{}'
