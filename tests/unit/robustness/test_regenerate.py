"""Sets made by the tool: their layout, that they are reproducible, and bad input."""

import hashlib
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from gcp_mm.robustness import regenerate
from gcp_mm.robustness.regenerate import Recipe, make_set
from tests.helpers.runs import ROOT

SMALL_C = dict(names=('gaussian_noise', 'impulse_noise', 'glass_blur', 'frost'), severities=(1, 4))
SMALL_P = dict(names=('shot_noise', 'snow', 'rotate'))
IMAGES = ('cats/grey.png', 'cats/palette.png', 'dogs/alpha.png', 'dogs/print.jpg')


def recipe(kind='c', **options):
    usual = SMALL_C if kind == 'c' else SMALL_P
    return Recipe(kind, **{**usual, 'size': 64, **options})


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Two classes, two images each: grey, with a palette, with transparency, and for printing."""
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
        assert done == dict(made=32 if kind == 'c' else 12, found=0, skipped={})
    return root


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Run the tool in this process, which has imported what takes seconds; returns its output."""

    def run(*words):
        monkeypatch.setattr(sys, 'argv', ['make_corruptions.py', *map(str, words)])
        runpy.run_path(str(ROOT / 'tools/make_corruptions.py'), run_name='__main__')
        return capsys.readouterr().out

    return run


def contents(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob('*')
        if path.is_file()
    }


def test_corrupted_images_are_laid_out_as_in_imagenet_c(made):
    stems = [name.rsplit('.', 1)[0] for name in IMAGES]
    wanted = {
        f'{name}/{severity}/{stem}.JPEG'
        for name in SMALL_C['names']
        for severity in SMALL_C['severities']
        for stem in stems
    }
    assert set(contents(made / 'c')) == wanted | {'GENERATED.json'}
    reference = made / 'reference.jpg'
    Image.new('RGB', (8, 8)).save(reference, quality=85)
    tables = Image.open(reference).quantization
    for path in wanted:
        with Image.open(made / 'c' / path) as image:
            assert (image.format, image.mode, image.size) == ('JPEG', 'RGB', (64, 64))
            assert image.quantization == tables


def test_sequences_are_folders_of_frames(made):
    stems = [name.rsplit('.', 1)[0] for name in IMAGES]
    wanted = {
        f'{name}/{stem}/{number:02d}.png'
        for name in SMALL_P['names']
        for stem in stems
        for number in range(31)
    }
    assert set(contents(made / 'p')) == wanted | {'GENERATED.json'}


@pytest.mark.parametrize('name', IMAGES)
def test_any_mode_becomes_rgb(made, source, name):
    """The first frame of a noise sequence is the image resized and cropped, as PIL does it."""
    image = Image.open(source / name).convert('RGB').resize((91, 73), Image.BILINEAR)
    stem = name.rsplit('.', 1)[0]
    first = Image.open(made / f'p/shot_noise/{stem}/00.png')
    assert np.array_equal(np.asarray(first), np.asarray(image)[4:68, 14:78])
    noisy = np.asarray(Image.open(made / f'c/gaussian_noise/1/{stem}.JPEG')).astype(float)
    assert np.abs(noisy.mean() - np.asarray(first).mean()) < 10


def test_stamp_says_what_it_is(made):
    stamp = json.loads((made / 'c/GENERATED.json').read_text())
    assert stamp['note'].startswith('regenerated, not official')
    made_with = stamp['made_with']
    assert made_with['imagecorruptions-imaug'] == metadata.version('imagecorruptions-imaug')
    assert made_with['source']['images'] == 4
    assert {key: made_with[key] for key in ('kind', 'size', 'resize', 'seed', 'stored')} == dict(
        kind='c', size=64, resize=73, seed=0, stored='JPEG, quality 85'
    )


def test_command_line_in_three_processes_and_one_give_the_same_bytes(
    run_tool, made, source, tmp_path
):
    options = ('--size', 64, '--workers', 3)
    done = run_tool(
        *('tools/make_corruptions.py', source, tmp_path / 'out', *options),
        *('--corruptions', *SMALL_C['names'], '--severities', *SMALL_C['severities']),
        *('--perturbations', *SMALL_P['names']),
    )
    assert done.returncode == 0, done.stdout
    assert f'{tmp_path}/out/c: 32 made, 0 were there' in done.stdout
    assert f'{tmp_path}/out/p: 12 made, 0 were there' in done.stdout
    for kind in 'cp':
        assert contents(tmp_path / 'out' / kind) == contents(made / kind)


def test_order_does_not_matter(made, source, tmp_path, monkeypatch):
    found = regenerate.find_images(source)
    monkeypatch.setattr(regenerate, 'find_images', lambda source: found[::-1])
    monkeypatch.setattr(
        regenerate, 'fingerprint', lambda images, f=regenerate.fingerprint: f(found)
    )
    for name in reversed(SMALL_C['names']):
        for severity in reversed(SMALL_C['severities']):
            part = recipe(names=[name], severities=[severity])
            assert make_set(part, source, tmp_path / 'c')['made'] == 4
    assert contents(tmp_path / 'c') == contents(made / 'c')


def test_other_seed_and_other_place_give_other_noise(made, source, own_source, tmp_path):
    wanted = 'gaussian_noise/1/cats/grey.JPEG'
    part = dict(names=['gaussian_noise'], severities=[1])
    make_set(recipe(seed=1, **part), source, tmp_path / 'seed')
    (own_source / 'cats/grey.png').rename(own_source / 'cats/other.png')
    make_set(recipe(**part), own_source, tmp_path / 'place')
    files = (
        made / 'c' / wanted,
        tmp_path / 'seed' / wanted,
        tmp_path / 'place' / wanted.replace('grey', 'other'),
    )
    assert len({path.read_bytes() for path in files}) == 3


@pytest.mark.parametrize(('kind', 'writer'), [('c', 'write_jpeg'), ('p', 'write_pngs')])
def test_stopped_run_goes_on(made, source, tmp_path, monkeypatch, kind, writer):
    whole, calls = getattr(regenerate, writer), []

    def stop_at_the_sixth(content, path):
        calls.append(path)
        if len(calls) == 6:
            if kind == 'p':
                whole(content[:3], path)
            else:
                path.write_bytes(b'half')
            raise KeyboardInterrupt
        whole(content, path)

    monkeypatch.setattr(regenerate, writer, stop_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        make_set(recipe(kind), source, tmp_path / kind)
    assert calls[-1].exists()
    monkeypatch.setattr(regenerate, writer, whole)
    total = 32 if kind == 'c' else 12
    wanted = dict(made=total - 5, found=5, skipped={})
    assert make_set(recipe(kind), source, tmp_path / kind) == wanted
    assert contents(tmp_path / kind) == contents(made / kind)
    kept = {
        path: path.stat().st_mtime_ns for path in (tmp_path / kind).rglob('*.*') if path.is_file()
    }
    del kept[tmp_path / kind / 'GENERATED.json']
    assert make_set(recipe(kind), source, tmp_path / kind, workers=2)['found'] == total
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


@pytest.mark.slow
def test_killed_run_leaves_no_process_and_goes_on(run_tool, source, tmp_path):
    options = ('--kind', 'c', '--size', 64, '--workers', 2)
    command = ('tools/make_corruptions.py', source, tmp_path / 'c', *options)
    running = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, start_new_session=True
    )
    while len(list(tmp_path.rglob('*.JPEG'))) < 50:
        assert running.poll() is None
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    for _ in range(600):
        try:
            os.killpg(running.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail('processes of the killed run are left')
    done = run_tool(*command)
    assert 0 < int(re.search(r'(\d+) were there', done.stdout)[1]) < 380
    make_set(Recipe('c', size=64), source, tmp_path / 'other')
    assert contents(tmp_path / 'c') == contents(tmp_path / 'other')


def test_arrays_hold_the_same_frames(made, source, tmp_path):
    make_set(recipe('p', names=['snow'], frames='npy'), source, tmp_path / 'npy')
    array = np.load(tmp_path / 'npy/snow/dogs/print.npy')
    assert array.shape == (31, 64, 64, 3)
    frames = sorted((made / 'p/snow/dogs/print').iterdir())
    assert np.array_equal(array, [np.asarray(Image.open(path)) for path in frames])


@pytest.mark.parametrize('name', ['shot_noise', 'rotate'])
def test_videos_are_h264(made, source, tmp_path, name):
    make_set(recipe('p', names=[name], frames='mp4'), source, tmp_path / 'mp4')
    assert len(list((tmp_path / 'mp4').rglob('*.mp4'))) == 4
    video = cv2.VideoCapture(str(tmp_path / f'mp4/{name}/dogs/alpha.mp4'))
    assert int(video.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, 'little') in (b'avc1', b'h264')
    frames = sorted((made / f'p/{name}/dogs/alpha').iterdir())
    for path in frames:
        _, frame = video.read()
        exact = np.asarray(Image.open(path)).astype(float)
        assert np.abs(frame[..., ::-1] - exact).mean() < 6
    assert not video.read()[0]


def test_set_made_otherwise_is_left_alone(made, source, own_source, tmp_path):
    target = shutil.copytree(made / 'c', tmp_path / 'c')
    before = contents(target)
    for other, difference in (
        (recipe(seed=1), r"{'seed': 0}, and this is {'seed': 1}"),
        (recipe(resize=64), r"{'resize': 73}"),
        (recipe('p'), "'kind': 'c'"),
    ):
        with pytest.raises(ValueError, match=f'was made with .*{difference}.*name another folder'):
            make_set(other, source, target)
    (own_source / 'cats/grey.png').unlink()
    with pytest.raises(ValueError, match=r"was made with {'source': {'images': 4"):
        make_set(recipe(), own_source, target)
    foreign = tmp_path / 'foreign'
    foreign.mkdir()
    (foreign / 'thesis.tex').touch()
    with pytest.raises(ValueError, match='was not made by this program'):
        make_set(recipe(), source, foreign)
    with pytest.raises(ValueError, match='is a file'):
        make_set(recipe(), source, foreign / 'thesis.tex')
    for inside in (source, source / 'c', source.parent):
        with pytest.raises(ValueError, match='lie in one another'):
            make_set(recipe(), source, inside)
    assert contents(target) == before
    assert len(list(foreign.iterdir())) == 1


def spoil(root):
    """Three files that cannot be read, each in its own way."""
    whole = (root / 'dogs/print.jpg').read_bytes()
    (root / 'dogs/print.jpg').write_bytes(whole[: len(whole) // 2])
    (root / 'cats/palette.png').write_text('no picture')
    Image.fromarray(np.full((80, 100), 40000, np.uint16)).save(root / 'dogs/alpha.png')


def test_first_unreadable_image_is_named(own_source, tmp_path):
    spoil(own_source)
    with pytest.raises(ValueError, match=r'cats/palette.png: cannot be read .*--skip-bad'):
        make_set(recipe(), own_source, tmp_path / 'c')
    files = [path for path in (tmp_path / 'c').rglob('*') if path.is_file()]
    assert {path.name for path in files} == {'GENERATED.json', 'grey.JPEG'}


def test_unreadable_images_are_left_out_and_listed(made, own_source, run_here, tmp_path):
    spoil(own_source)
    printed = run_here(
        *(own_source, tmp_path / 'c', '--kind', 'c', '--size', 64, '--skip-bad', '--workers', 1),
        *('--corruptions', 'gaussian_noise'),
    )
    assert f'{tmp_path}/c: 5 made, 0 were there' in printed
    listed = json.loads((tmp_path / 'c/GENERATED.json').read_text())['skipped']
    for name, reason in (
        ('cats/palette.png', 'cannot identify image file'),
        ('dogs/alpha.png', 'not of 8 bits'),
        ('dogs/print.jpg', 'truncated'),
    ):
        assert reason in listed.pop(name)
        assert f'{tmp_path}/c: left out {name}: cannot be read' in printed
    assert not listed
    same = 'gaussian_noise/1/cats/grey.JPEG'
    assert (tmp_path / 'c' / same).read_bytes() == (made / 'c' / same).read_bytes()
    # Mended, it joins the others.
    shutil.copy(own_source / 'cats/grey.png', own_source / 'cats/palette.png')
    part = recipe(names=['gaussian_noise'], severities=range(1, 6))
    done = make_set(part, own_source, tmp_path / 'c', skip_bad=True)
    assert (done['made'], done['found'], len(done['skipped'])) == (5, 5, 2)


def test_nothing_but_unreadable_images(tmp_path):
    (tmp_path / 'clean/cats').mkdir(parents=True)
    (tmp_path / 'clean/cats/a.jpg').touch()
    with pytest.raises(ValueError, match='none of the 1 images can be read'):
        make_set(recipe(), tmp_path / 'clean', tmp_path / 'c', skip_bad=True)


def test_other_layouts_are_refused(own_source, tmp_path):
    def message():
        with pytest.raises((FileNotFoundError, ValueError)) as error:
            make_set(recipe(), tmp_path / 'clean', tmp_path / 'c')
        assert not (tmp_path / 'c').exists()
        return str(error.value)

    (own_source / 'cats/grey.jpg').touch()
    assert 'cats/grey.jpg and grey.png would become one file' in message()
    (own_source / 'cats/grey.jpg').unlink()
    (own_source / 'empty').mkdir()
    assert 'found no image in empty/' in message()
    (own_source / 'empty/train').mkdir()
    assert f'did you mean {own_source}/empty?' in message()
    shutil.rmtree(own_source / 'empty')
    (own_source / '.hidden').mkdir()
    (own_source / 'flat.PNG').touch()
    assert 'found the image flat.PNG in no class' in message()
    shutil.rmtree(own_source)
    assert 'no such folder' in message()
    own_source.mkdir()
    assert 'expected <class>/<image> and found no image' in message()


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(kind='x'), ValueError, "kind: expected 'c' or 'p', got 'x'"),
        (dict(names=['fog', 'rain']), ValueError, "names: .*got .'rain'"),
        (dict(names=[]), ValueError, 'names: expected some of'),
        (dict(kind='p', names=['fog']), ValueError, "names: .*got .'fog'"),
        (dict(severities=[0]), ValueError, 'severities: expected some of 1 to 5'),
        (dict(severities=[]), ValueError, 'severities: expected some of 1 to 5'),
        (dict(size=32), ValueError, 'size: .* at least 64, got 32'),
        (dict(size=64.0), TypeError, 'size: .*got 64.0'),
        (dict(resize=60), ValueError, 'resize: .* at least 64, got 60'),
        (dict(seed=-1), ValueError, 'seed: .* at least 0, got -1'),
        (dict(frames='avi'), ValueError, "frames: expected one of png, npy, mp4, got 'avi'"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        recipe(**options)


def test_tool_says_what_is_wrong_in_a_line(run_here, tmp_path):
    with pytest.raises(SystemExit) as error:
        run_here(tmp_path / 'none', tmp_path / 'out')
    assert str(error.value).startswith(f'make_corruptions.py: error: {tmp_path}/none: no such')
    assert not (tmp_path / 'out').exists()


def test_absent_encoder_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'imageio_ffmpeg', None)
    with pytest.raises(ModuleNotFoundError, match='pip install imageio-ffmpeg, or choose png'):
        recipe('p', frames='mp4')
