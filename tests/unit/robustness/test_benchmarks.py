"""ImageNet-C and -P for mmengine: layouts, labels, preprocessing, bad files, and the metrics."""

import re
import struct

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, METRICS
from PIL import Image
from torchvision.transforms import v2

from gcp_mm.robustness.benchmarks import IMAGENET_WNIDS, ImageNetC, ImageNetP
from tests.helpers.benchmark_trees import LABELS, WNIDS, write_image, write_trees, write_video


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp('trees')
    write_trees(root, ['fog'], ['tilt', 'shot_noise', 'snow'])
    return root


def fog(root):
    return ImageNetC(str(root / 'c'), 'fog/3', crop_size=32)


def labels_of(dataset):
    return [dataset.get_data_info(i)['gt_label'] for i in range(len(dataset))]


def test_classes_of_imagenet_are_mmpretrains_in_order():
    """MMPretrain has the names and no ids: those of two classes with well-known ids."""
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

    assert len(set(IMAGENET_WNIDS)) == 1000 == len(IMAGENET_CATEGORIES)
    assert list(IMAGENET_WNIDS) == sorted(IMAGENET_WNIDS)
    for wnid, name in (
        *(('n01440764', 'tench'), ('n02123045', 'tabby'), ('n02099601', 'golden retriever')),
        *(('n03180011', 'desktop computer'), ('n15075141', 'toilet tissue')),
    ):
        assert IMAGENET_CATEGORIES[IMAGENET_WNIDS.index(wnid)].startswith(name)


def test_two_classes_keep_their_labels_among_1000(trees):
    dataset = DATASETS.build(
        dict(type='ImageNetC', data_root=str(trees / 'c'), data_prefix='fog/1')
    )
    assert isinstance(dataset, ImageNetC)
    assert labels_of(dataset) == [LABELS[0]] * 2 + [LABELS[1]] * 2
    assert dataset.metainfo['classes'] == IMAGENET_WNIDS


def test_other_folders_are_the_classes_in_their_order(tmp_path):
    """Empty ones, too."""
    for name in ('0', '1', '2', '.hidden'):
        (tmp_path / name).mkdir()
    write_image(tmp_path / '10/a.jpg', np.random.default_rng(0))
    dataset = ImageNetC(str(tmp_path), crop_size=32)
    assert dataset.metainfo['classes'] == ('0', '1', '10', '2')
    assert labels_of(dataset) == [2]


def test_folders_among_imagenets_that_are_none_of_its_classes(tmp_path):
    write_image(tmp_path / WNIDS[0] / 'a.jpg', np.random.default_rng(0))
    for name in ('n00000000', 'other'):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=r'2 folders are none of the 1000 .*: n00000000, other'):
        ImageNetC(str(tmp_path), crop_size=32)


def test_corrupted_images_are_not_resized(trees):
    dataset = fog(trees)
    for i in range(4):
        item = dataset[i]
        pixels = np.asarray(Image.open(item['data_samples'].img_path))
        np.testing.assert_array_equal(item['inputs'].permute(1, 2, 0)[..., [2, 1, 0]], pixels)


def test_clean_images_are_torchvisions_resize_and_crop(tmp_path):
    rng = np.random.default_rng(0)
    for i, size in enumerate([(60, 40), (41, 77), (300, 301)]):
        write_image(tmp_path / WNIDS[0] / f'{i}.JPEG', rng, size)
    transform = v2.Compose([v2.Resize(36), v2.CenterCrop(32)])
    for item in ImageNetC(str(tmp_path), resize=36, crop_size=32):
        expected = transform(Image.open(item['data_samples'].img_path))
        np.testing.assert_array_equal(item['inputs'].permute(1, 2, 0)[..., [2, 1, 0]], expected)


def test_gray_and_cmyk_images_become_rgb(tmp_path):
    for mode in ('L', 'CMYK'):
        (tmp_path / 'x').mkdir(exist_ok=True)
        Image.new(mode, (32, 32), 100 if mode == 'L' else (0, 255, 255, 0)).save(
            tmp_path / f'x/{mode}.JPEG'
        )
    cmyk, gray = ImageNetC(str(tmp_path), crop_size=32)
    assert (gray['inputs'] == 100).all()
    assert cmyk['inputs'][2].float().mean() > 200 > 100 > cmyk['inputs'][:2].float().mean()  # red


@pytest.mark.parametrize('ending', ['.npy', '', '.mp4'])
def test_frames_of_a_sequence(tmp_path, ending):
    rng = np.random.default_rng(0)
    video = write_video(tmp_path / f'tilt/x/v{ending}', rng, frames=11)
    (item,) = ImageNetP(str(tmp_path), 'tilt', crop_size=32)
    assert item['inputs'].shape == (11, 3, 32, 32)
    frames = item['inputs'].permute(0, 2, 3, 1)[..., [2, 1, 0]].numpy()
    (item,) = ImageNetP(str(tmp_path), 'tilt', crop_size=20)
    cropped = item['inputs'].permute(0, 2, 3, 1)[..., [2, 1, 0]]
    np.testing.assert_array_equal(cropped, frames[:, 6:26, 6:26])
    if ending == '.mp4':  # lossy
        assert np.abs(frames.astype(int) - video).mean() < 8
    else:
        np.testing.assert_array_equal(frames, video)


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])


def with_header_first(path):
    """Move the index of an mp4 to the front, as in files for streaming."""
    atoms, content = {}, path.read_bytes()
    while content:
        size, kind = struct.unpack('>I4s', content[:8])
        atoms[kind], content = content[:size], content[size:]
    moov = bytearray(atoms.pop(b'moov'))
    table = moov.index(b'stco') + 8  # version and flags; then the number of offsets and the offsets
    (count,) = struct.unpack('>I', moov[table : table + 4])
    for at in range(table + 4, table + 4 + 4 * count, 4):
        (offset,) = struct.unpack('>I', moov[at : at + 4])
        moov[at : at + 4] = struct.pack('>I', offset + len(moov))
    path.write_bytes(atoms.pop(b'ftyp') + moov + b''.join(atoms.values()))


def one_frame(path):
    write_video(path, np.random.default_rng(0), frames=1)


def half_a_stream(path):
    write_video(path, np.random.default_rng(0), frames=40)
    with_header_first(path)
    truncate(path)


def half_a_file(path):
    write = write_image if path.suffix == '.JPEG' else write_video
    write(path, np.random.default_rng(0))
    truncate(path)


def half_a_frame(path):
    write_video(path, np.random.default_rng(0))
    truncate(path / '2.png')


def text(path):
    path.write_text('<html>')


@pytest.mark.parametrize(
    ('ending', 'spoil', 'reason'),
    [
        ('.JPEG', half_a_file, '[Tt]runcated'),
        ('.JPEG', lambda path: path.write_bytes(b''), 'cannot identify image file'),
        ('.JPEG', text, 'cannot identify image file'),
        ('.JPEG', lambda path: write_image(path, np.random.default_rng(0), (20, 32)), '20x32 pix'),
        ('.mp4', one_frame, '1 frame, and stability needs at least 2'),
        ('.npy', one_frame, '1 frame, and stability needs at least 2'),
        ('', one_frame, '1 frame, and stability needs at least 2'),
        ('', lambda path: path.mkdir(), '0 frame'),
        ('.mp4', half_a_file, 'no video, truncated'),
        ('.mp4', half_a_stream, 'of its 40 frames can be decoded'),
        ('.mp4', text, 'no video'),
        ('.npy', half_a_file, 'mmap length'),
        ('.npy', lambda path: path.write_bytes(b''), 'No data left|Failed to read'),
        ('', half_a_frame, 'truncated|broken'),
        (
            '.npy',
            lambda path: np.save(path, np.zeros((4, 3, 32, 32), np.float32)),
            r'float32 of shape \(4, 3, 32, 32\); expected uint8',
        ),
    ],
)
def test_bad_file_is_named_or_marked(tmp_path, ending, spoil, reason):
    rng, folder = np.random.default_rng(0), tmp_path / 'part/x'
    if ending == '.JPEG':
        kind, shape = ImageNetC, (3, 32, 32)
        write_image(folder / 'a.JPEG', rng)
    else:
        kind, shape = ImageNetP, (4, 3, 32, 32)
        write_video(folder / 'a.npy', rng)
    spoil(folder / f'b{ending}')
    with pytest.raises(ValueError, match=rf'part/x/b{ending}: .*({reason})'):
        kind(str(tmp_path), 'part', crop_size=32)[1]
    good, bad = kind(str(tmp_path), 'part', crop_size=32, skip_bad=True)
    assert good['inputs'].shape == shape
    assert 'unreadable' not in good['data_samples']
    assert re.search(reason, bad['data_samples'].unreadable)
    assert bad['inputs'].shape == (3, 32, 32)


def test_other_layouts_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='c/fog/3'):
        fog(tmp_path)
    write_image(tmp_path / 'c/fog/3/image.JPEG', np.random.default_rng(0))
    (tmp_path / 'c/fog/3' / WNIDS[0]).mkdir()
    with pytest.raises(FileNotFoundError, match='c/fog/3: expected files in <class>/'):
        fog(tmp_path)


def test_what_is_no_image_is_left_out_and_said(tmp_path, log):
    for name in ('0.jpg', '1.tiff', '2.webp'):
        write_image(tmp_path / 'data/a' / name, np.random.default_rng(0))
    assert len(ImageNetC(str(tmp_path / 'data'), crop_size=32)) == 3
    assert 'left out' not in log()
    (tmp_path / 'data/a/thumbs').mkdir()
    for name in ('a/3.gif', '4.jpg'):
        (tmp_path / 'data' / name).touch()
    (tmp_path / 'data/a/._0.jpg').touch()
    assert len(ImageNetC(str(tmp_path / 'data'), crop_size=32)) == 3
    for count in ('1 .gif', '1 .jpg', '1 without suffix'):
        assert count in log()


def evaluate(metric, meta, *samples):
    """The results of a metric; a sample is of a file, logits or None, and other fields."""
    metric = METRICS.build(metric) if isinstance(metric, dict) else metric
    metric.dataset_meta = meta
    for index, logits, fields in samples:
        given = {} if logits is None else dict(logits=torch.as_tensor(logits))
        metric.process({}, [dict(img_path=f'{index}.JPEG', **given, **fields)])
    return metric.evaluate(len({index for index, *_ in samples}))


def errors(*samples, **options):
    return evaluate(
        dict(type='CorruptionError', **options), dict(classes=('a', 'b', 'c')), *samples
    )


def label(value):
    return dict(gt_label=value)


def test_corruption_error_counts_each_file_once():
    samples = [(0, [3.0, 2, 1], label(2)), (1, [0.0, 2, 1], label(1)), (2, [3.0, 2, 1], label(0))]
    repeated = samples[0]  # by a distributed sampler
    assert errors(*samples, repeated) == {
        'corruption/error': pytest.approx(1 / 3),
        'corruption/files': 3,
        'corruption/skipped': [],
    }


def test_nan_is_named_or_listed():
    bad = (7, [0, np.nan, 0], label(0))
    with pytest.raises(ValueError, match=r'7\.JPEG: the network gives NaN'):
        errors(bad)
    with pytest.raises(ValueError, match=r'all 1 files were skipped; 7\.JPEG: the network gives'):
        errors(bad, skip_bad=True)
    samples = (bad, (8, None, dict(unreadable='8: why')), (9, [0, 1, 0], label(0)))
    assert errors(*samples, skip_bad=True) == {
        'corruption/error': 1,
        'corruption/files': 1,
        'corruption/skipped': [
            dict(file='7.JPEG', reason='7.JPEG: the network gives NaN'),
            dict(file='8.JPEG', reason='8: why'),
        ],
    }


def test_wrong_number_of_classes_is_refused():
    with pytest.raises(
        ValueError, match=r'network has 2 classes and the data 3 \(a, b, c.*empty folder'
    ):
        errors((0, [0.0, 1], label(0)))


@pytest.mark.parametrize(('perturbation', 'expected'), [('tilt', 1), ('x_noise', 2 / 3)])
def test_stability_follows_the_perturbation(perturbation, expected):
    video = [[1.0, 0], [0, 1], [1, 0], [0, 1]]
    kind = dict(type='PerturbationStability')
    metrics = evaluate(kind, dict(folder=perturbation), (0, video, {}))
    assert metrics['perturbation/flip_probability'] == pytest.approx(expected)
    assert metrics['perturbation/top5_distance'] == pytest.approx(2 * expected)


def groups_of(folder, *samples):
    metric = METRICS.build(dict(type='PerturbationStability', skip_bad=True))
    assert 'groups' not in ' '.join(evaluate(metric, dict(folder=folder), *samples))
    return metric.groups


def test_groups_share_the_sequences_at_random_and_alike():
    """The first half of 200 flips: in groups of neighbors the deviation would be 0.5."""
    videos = [[[1.0, 0], [0.0, 1]], [[1.0, 0], [1.0, 0]]]
    samples = [(i, videos[i >= 100], {}) for i in range(200)]
    found = groups_of('tilt', *samples)
    assert list(found) == ['flip_probability', 'top5_distance']
    assert len(found['flip_probability']) == 50
    assert np.mean(found['flip_probability']) == pytest.approx(0.5)  # they are of equal size
    assert 0 < np.std(found['flip_probability']) < 0.4
    assert groups_of('snow', *samples) == found
    # Of 60 sequences a group has one or two; one whose sequences are all left out ends them.
    bad = [(i, None, dict(unreadable='why')) for i in range(40)]
    assert groups_of('tilt', *bad, *((i, videos[0], {}) for i in range(40, 60))) == {}
