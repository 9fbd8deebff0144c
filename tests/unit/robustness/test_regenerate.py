"""Sets made from clean images: their layout, that they are reproducible, and bad input."""

import hashlib
import json
import shutil
from importlib import metadata

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from gcp_mm.robustness import regenerate
from gcp_mm.robustness.errors import SEVERITIES
from gcp_mm.robustness.regenerate import Recipe, make_set

SMALL_C = dict(names=('gaussian_noise', 'impulse_noise'))
SMALL_P = dict(names=('shot_noise', 'snow', 'rotate'))
IMAGES = ('cats/gray.png', 'cats/palette.png', 'dogs/alpha.png', 'dogs/print.jpg')
STEMS = [name.split('.')[0] for name in IMAGES]


def recipe(kind='c', **options):
    usual = SMALL_C if kind == 'c' else SMALL_P
    return Recipe(kind, **{**usual, 'size': 64, **options})


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Two classes, two images each: gray, with a palette, with transparency, and for printing."""
    root = tmp_path_factory.mktemp('clean')
    photo = Image.fromarray(load_sample_image('flower.jpg')).resize((100, 80))
    modes = dict(zip(IMAGES, ('L', 'P', 'RGBA', 'CMYK'), strict=True))
    for name, mode in modes.items():
        (root / name).parent.mkdir(exist_ok=True)
        photo.convert(mode).save(root / name)
    return root


@pytest.fixture
def own_source(source, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(source, tmp_path / 'clean')


@pytest.fixture(scope='module')
def made(source, tmp_path_factory):
    """The small sets, made in this process."""
    root = tmp_path_factory.mktemp('made')
    for kind in 'cp':
        done = make_set(recipe(kind), source, root / kind)
        assert done == dict(made=40 if kind == 'c' else 12, found=0, skipped={})
    return root


def contents(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob('*')
        if path.is_file()
    }


def test_layout_and_formats_of_the_sets(made):
    names = [f'{name}/{severity}' for name in SMALL_C['names'] for severity in SEVERITIES]
    images = {f'{name}/{stem}.JPEG' for name in names for stem in STEMS}
    assert set(contents(made / 'c')) == images | {'GENERATED.json'}
    reference = made / 'reference.jpg'
    Image.new('RGB', (8, 8)).save(reference, quality=85)
    tables = Image.open(reference).quantization
    for path in images:
        with Image.open(made / 'c' / path) as image:
            assert (image.format, image.mode, image.size) == ('JPEG', 'RGB', (64, 64))
            assert image.quantization == tables
    sequences = {f'{name}/{stem}.npy' for name in SMALL_P['names'] for stem in STEMS}
    assert set(contents(made / 'p')) == sequences | {'GENERATED.json'}
    for path in sequences:
        frames = np.load(made / 'p' / path)
        assert (frames.dtype, frames.shape) == (np.uint8, (31, 64, 64, 3))


@pytest.mark.parametrize('name', IMAGES)
def test_any_mode_becomes_rgb(made, source, name):
    """The first frame of a noise sequence is the image resized and cropped, as PIL does it."""
    image = Image.open(source / name).convert('RGB').resize((91, 73), Image.BILINEAR)
    stem = name.split('.')[0]
    first = np.load(made / f'p/shot_noise/{stem}.npy')[0]
    assert np.array_equal(first, np.asarray(image)[4:68, 14:78])
    noisy = np.asarray(Image.open(made / f'c/gaussian_noise/1/{stem}.JPEG')).astype(float)
    assert np.abs(noisy.mean() - first.mean()) < 10


def test_stamp_says_what_it_is(made):
    stamp = json.loads((made / 'c/GENERATED.json').read_text())
    assert stamp['note'].startswith('regenerated, not official')
    made_with = stamp['made_with']
    assert made_with['imagecorruptions-imaug'] == metadata.version('imagecorruptions-imaug')
    assert made_with['source']['images'] == 4
    settings = {key: made_with[key] for key in ('kind', 'size', 'resize')}
    assert settings == dict(kind='c', size=64, resize=73)


@pytest.mark.parametrize('text', ['', '{', '{}', '{"made_with": null}'])
def test_damaged_stamp_is_named(source, tmp_path, text):
    (tmp_path / 'GENERATED.json').write_text(text)
    with pytest.raises(ValueError, match=r"GENERATED\.json'"):
        make_set(recipe(), source, tmp_path)


def test_order_does_not_matter(made, source, tmp_path):
    for name in reversed(SMALL_C['names']):
        assert make_set(recipe(names=[name]), source, tmp_path / 'c')['made'] == 20
    assert contents(tmp_path / 'c') == contents(made / 'c')


def test_another_path_gives_other_noise(made, own_source, tmp_path):
    (own_source / 'cats/gray.png').rename(own_source / 'cats/other.png')
    make_set(recipe(names=['gaussian_noise']), own_source, tmp_path / 'c')
    before = (made / 'c/gaussian_noise/1/cats/gray.JPEG').read_bytes()
    assert (tmp_path / 'c/gaussian_noise/1/cats/other.JPEG').read_bytes() != before


@pytest.mark.parametrize('kind', ['c', 'p'])
def test_stopped_run_goes_on(made, source, tmp_path, monkeypatch, kind):
    write, calls = regenerate.write_atomically, []

    def stop_at_the_sixth(path, content):
        calls.append(path)
        if len(calls) == 7:  # the first is the stamp
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(regenerate, 'write_atomically', stop_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        make_set(recipe(kind), source, tmp_path / kind)
    monkeypatch.undo()
    total = 40 if kind == 'c' else 12
    wanted = dict(made=total - 5, found=5, skipped={})
    assert make_set(recipe(kind), source, tmp_path / kind) == wanted
    assert contents(tmp_path / kind) == contents(made / kind)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / kind).glob('*/**/*.*')}
    assert make_set(recipe(kind), source, tmp_path / kind)['found'] == total
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_set_made_otherwise_is_left_alone(made, source, own_source, tmp_path):
    target = shutil.copytree(made / 'c', tmp_path / 'c')
    before = contents(target)
    for other, difference in (
        (recipe(resize=64), r"{'resize': 73}, and this is {'resize': 64}"),
        (recipe('p'), "'kind': 'c'"),
    ):
        with pytest.raises(ValueError, match=f'was made with .*{difference}.*name another'):
            make_set(other, source, target)
    picture = own_source / 'cats/gray.png'
    Image.open(picture).rotate(90).save(picture)
    for part in (recipe(), recipe(names=['fog'])):
        with pytest.raises(ValueError, match=r"was made with {'source': {'images': 4"):
            make_set(part, own_source, target)
    picture.unlink()
    with pytest.raises(ValueError, match=r"this is {'source': {'images': 3"):
        make_set(recipe(), own_source, target)
    with pytest.raises(ValueError, match='was not made by this program'):
        make_set(recipe(), source, own_source)
    assert contents(target) == before


def test_one_job_at_a_time(source, tmp_path, monkeypatch):
    def taken(path, output, wait):
        raise BlockingIOError(11, 'process 7 is writing it', str(output))

    monkeypatch.setattr('gcp_mm._lock._take', taken)
    with pytest.raises(BlockingIOError, match='process 7 '):
        make_set(recipe(), source, tmp_path / 'c')
    assert not list(tmp_path.rglob('*.*'))


def spoil(root):
    """Three files that cannot be read, each in its own way."""
    intact = (root / 'dogs/print.jpg').read_bytes()
    (root / 'dogs/print.jpg').write_bytes(intact[: len(intact) // 2])
    (root / 'cats/palette.png').write_text('no picture')
    Image.fromarray(np.full((80, 100), 40000, np.uint16)).save(root / 'dogs/alpha.png')


def test_first_unreadable_image_is_named(own_source, tmp_path):
    spoil(own_source)
    with pytest.raises(ValueError, match=r'cats/palette.png: cannot be read .*--skip-bad'):
        make_set(recipe(), own_source, tmp_path / 'c')
    files = [path for path in (tmp_path / 'c').rglob('*') if path.is_file()]
    assert {path.name for path in files} == {'GENERATED.json', 'gray.JPEG'}


def test_unreadable_images_are_left_out_and_listed(made, own_source, tmp_path):
    spoil(own_source)
    done = make_set(recipe(names=['gaussian_noise']), own_source, tmp_path / 'c', skip_bad=True)
    assert (done['made'], done['found']) == (5, 0)
    assert done['skipped'] == json.loads((tmp_path / 'c/GENERATED.json').read_text())['skipped']
    for name, reason in (
        ('cats/palette.png', 'cannot identify image file'),
        ('dogs/alpha.png', 'not of 8 bits'),
        ('dogs/print.jpg', 'truncated'),
    ):
        assert reason in done['skipped'].pop(name)
    assert not done['skipped']
    same = 'gaussian_noise/1/cats/gray.JPEG'
    assert (tmp_path / 'c' / same).read_bytes() == (made / 'c' / same).read_bytes()


@pytest.mark.parametrize(
    ('files', 'folder', 'error', 'message'),
    [
        (['cats/gray.jpg'], '', ValueError, r'2 images cats/gray\.\*'),
        ([], 'cats', FileNotFoundError, 'clean/cats: expected files'),
        ([], 'absent', FileNotFoundError, 'clean/absent: expected files'),
        (['bad/cats/a.jpg'], 'bad', ValueError, 'none of the 1 images can be read'),
    ],
)
def test_other_layouts_are_refused(own_source, tmp_path, files, folder, error, message):
    for name in files:
        (own_source / name).parent.mkdir(parents=True, exist_ok=True)
        (own_source / name).touch()
    with pytest.raises(error, match=message):
        make_set(recipe(), own_source / folder, tmp_path / 'c', skip_bad=True)
    assert not list(tmp_path.glob('c/*/*'))


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(names=['fog', 'rain']), ValueError, "names: .'rain'"),
        (dict(kind='p', names=['fog']), ValueError, "names: .'fog'"),
        (dict(size=32), ValueError, 'size: .* at least 64, got 32'),
        (dict(size=64.0), TypeError, 'size: .*got 64.0'),
        (dict(resize=60), ValueError, 'resize: .* at least 64, got 60'),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        recipe(**options)


def test_files_left_out_are_said(own_source, log):
    images = regenerate.find_images(own_source)
    assert 'left out' not in log()
    folder = (own_source / images[0]).parent
    (folder / 'deep').mkdir()
    for path in (
        folder / '0.gif',
        folder / 'deep/0.png',
        own_source / '0.png',
        folder / '.DS_Store',
    ):
        path.touch()
    assert regenerate.find_images(own_source) == images
    for count in ('1 .gif', '1 without suffix', '1 .png'):
        assert count in log()
