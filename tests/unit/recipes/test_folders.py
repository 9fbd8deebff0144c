"""Class folders are found, split and refused as a training would need them."""

import re
from pathlib import Path

import pytest
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from gcp_mm.recipes.folders import find_folders


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 8)).save(path)


def many(folder, number=5):
    return [f'{folder}/{i}.png' for i in range(number)]


@pytest.mark.parametrize(
    ('train', 'val'), [('train', 'val'), ('training', 'validation'), ('Train', 'Test')]
)
def test_given_splits(tmp_path, train, val):
    touch(tmp_path, *many(f'{train}/b'), f'{train}/a/deep/er/x.JPG', f'{val}/a/y.webp')
    (tmp_path / val / 'b').mkdir()
    (tmp_path / train / 'a/notes.txt').write_text('no image')
    found = find_folders(tmp_path)
    assert (found.classes, found.was_split) == (('a', 'b'), False)
    assert found.prefixes == dict(train=train, val=val)
    assert found.samples['train'][0] == ('a/deep/er/x.JPG', 0)
    assert found.samples['val'] == [('a/y.webp', 0)]
    assert len(found.samples['train']) == 6
    assert ('Test/' in ' '.join(found.notes)) == (val == 'Test')


@pytest.mark.parametrize('root', ['', 'train'])
def test_split_is_deterministic_and_has_each_class(tmp_path, root):
    touch(tmp_path / root, *many('änd ere', 11), *many('one', 2), *many('two', 5))
    found, again, other = (find_folders(tmp_path, seed) for seed in (0, 0, 1))
    assert found == again
    assert found.samples != other.samples
    val, train = ([label for _, label in found.samples[split]] for split in ('val', 'train'))
    assert [val.count(label) for label in range(3)] == [1, 1, 2]
    assert [train.count(label) for label in range(3)] == [1, 4, 9]
    assert not set(found.samples['val']) & set(found.samples['train'])
    assert all(Path(i['img_path']).is_file() for s in ('train', 'val') for i in found.infos(s))


def test_labels_are_those_of_mmpretrain(tmp_path):
    import mmpretrain.datasets  # noqa: F401  registers them

    names = ['10', '2', 'B', 'a', 'Ä', '人']
    touch(tmp_path, *(f'{s}/{name}/1.png' for s in ('train', 'val') for name in names))
    found = find_folders(tmp_path)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        config = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='train')
        dataset = DATASETS.build(config)
    assert found.classes == dataset.metainfo['classes']


@pytest.mark.parametrize(
    ('names', 'words'),
    [
        ([], ['no class folders']),
        (['1.png'], ['no class folders']),
        (many('cat'), ["'cat'", 'two']),
        (['sets/cat/1.png', 'sets/dog/1.png'], ["one class folder, 'sets'", 'or name']),
        ([*many('cat'), 'dog/1.png'], ['single', "'dog'"]),
        ([*many('train/cat'), *many('train/dog'), *many('val/cat')], ["['dog']"]),
        ([*many('train/.x'), *many('train/dog'), *many('val/.x'), *many('val/dog')], ['.x']),
        ([*many('seg_train/cat'), *many('seg_test/cat')], ['seg_train', 'train and val']),
        ([*many('Train/a'), *many('unlabeled/b')], ['Train', 'train and val']),
        ([*many('cat'), *many(' dog')], ['/ dog/']),
        ([*many('cat'), *many('dog\nx')], ['dog']),
    ],
)
def test_what_is_refused(tmp_path, names, words):
    touch(tmp_path, *names)
    with pytest.raises(ValueError, match='.*'.join(map(re.escape, words))):
        find_folders(tmp_path)


@pytest.mark.parametrize('split', ['train/', ''])
def test_an_empty_class_is_refused(tmp_path, split):
    others = [*many('val/cat'), *many('val/dog')] if split else []
    touch(tmp_path, *many(f'{split}cat'), *others)
    (tmp_path / split / 'dog').mkdir()
    with pytest.raises(ValueError, match="'dog'"):
        find_folders(tmp_path)


def test_trains_may_be_a_class(tmp_path):
    touch(tmp_path, *many('train wagons'), *many('cars'))
    assert find_folders(tmp_path).classes == ('cars', 'train wagons')


def test_hidden_files_and_links(tmp_path):
    names = ['cat/._1.png', 'cat/.cache/1-checkpoint.png', '.git/x.png']
    touch(tmp_path, *many('cat'), *many('dog'), *names)
    touch(tmp_path.parent / f'{tmp_path.name}-elsewhere', 'y.png')
    (tmp_path / 'dog/more').symlink_to(tmp_path.parent / f'{tmp_path.name}-elsewhere')
    found = find_folders(tmp_path)
    names = {name for split in ('train', 'val') for name, _ in found.samples[split]}
    assert names == {*many('cat'), *many('dog'), 'dog/more/y.png'}


def test_hidden_folders_behind_links_of_a_split(tmp_path):
    root, elsewhere = tmp_path / 'data', tmp_path / 'elsewhere'
    touch(root, *(f'{split}/{name}' for split in ('train', 'val') for name in many('cat')))
    touch(elsewhere, '1.png', '.ipynb_checkpoints/1.png')
    for split in ('train', 'val'):
        (root / split / 'dog').symlink_to(elsewhere)
    with pytest.raises(ValueError, match=r'ipynb_checkpoints.* would be read'):
        find_folders(root)


def test_files_left_out_are_counted(tmp_path):
    touch(tmp_path, *many('cat'), *many('dog'))
    for name in ('1.heic', '2.HEIC', 'notes.txt'):
        (tmp_path / 'cat' / name).touch()
    assert '2 .heic, 1 .txt' in ' '.join(find_folders(tmp_path).notes)
