"""Results are continued only on the files that they are of."""

import os

import pytest

from gcp_mm.robustness.results import check_files, files_hash


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


def test_results_without_a_record_of_their_files(folder):
    with pytest.raises(ValueError, match=str(folder)):
        check_files('robustness.json', dict(parts={'clean': {}}), {'clean': folder})
    check_files('robustness.json', dict(parts={}), {'clean': folder})
