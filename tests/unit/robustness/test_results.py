"""Results of another form are refused; they are continued only on the files that they are of."""

import json
import os
import re

import pytest

from gcp_mm.robustness.results import check_files, files_hash, read_results


@pytest.fixture
def folder(tmp_path):
    """Of one class, with an image and a sequence of frames."""
    for name in ('cats/a.png', 'cats/sequence/1.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'image')
        os.utime(tmp_path / name, (0, 0))
    return tmp_path


@pytest.mark.parametrize(
    'change',
    [
        lambda folder: (folder / 'cats/b.png').write_bytes(b'image'),
        lambda folder: (folder / 'cats/a.png').write_bytes(b'other'),
        lambda folder: os.truncate(folder / 'cats/sequence/1.png', 3),
        lambda folder: (folder / 'cats/a.png').unlink(),
        lambda folder: (folder / 'cats/a.png').rename(folder / 'cats/c.png'),
    ],
    ids=['added', 'replaced', 'cut short', 'removed', 'renamed'],
)
def test_files_that_changed(folder, change):
    results = dict(parts={'clean': {}}, files={'clean': files_hash(folder)})
    check_files('robustness.json', results, {'clean': folder, 'imagenet-c/fog/1': folder})
    change(folder)
    with pytest.raises(ValueError, match=rf"robustness\.json .*'{folder}'"):
        check_files('robustness.json', results, {'clean': folder})


def text_of(name, numbers, **changes):
    """Text of a file of results of one part."""
    results = dict(name='a', checkpoint='b', identity=dict(checkpoint_sha256='c'), roots={})
    return json.dumps(results | dict(regenerated=[], parts={name: numbers}) | changes)


CLEAN = dict(error=0.1, skipped=[])
AP = {'coco/bbox_mAP': 0.4}


@pytest.mark.parametrize(
    'text',
    [
        text_of('clean', CLEAN)[:-20],
        text_of('clean', CLEAN, parts=None),
        text_of('clean', CLEAN | dict(error=10)),  # percent, not a fraction
        text_of('clean', CLEAN | dict(skipped=[{}])),
        text_of('clean', {'coco/bbox_mAP': 'x'}, images=5, skipped=[]),
    ],
    ids=['cut short', 'no parts', 'percent', 'no reason', 'of a detector'],
)
def test_damaged_results_are_named(text, tmp_path):
    path = tmp_path / 'robustness.json'
    for right in (text_of('clean', CLEAN), text_of('clean', AP, images=5, skipped=[])):
        path.write_text(right)
        assert read_results(path) == json.loads(right)
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(repr(str(path)))):
        read_results(path)
