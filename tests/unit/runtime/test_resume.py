"""From which checkpoint a run continues."""

import os
import shutil

import pytest
import torch
from mmengine.config import Config

from gcp_mm.runtime.resume import find_checkpoint, set_resume


def save(path, seed=0):
    torch.save(dict(state_dict=dict(w=torch.full((5000,), float(seed)))), path)
    return path


@pytest.fixture
def work_dir(tmp_path):
    """With three checkpoints, the file that names the latest, and others not to resume from."""
    for number in (2, 9, 10):
        save(tmp_path / f'epoch_{number}.pth')
    for name in ('best_accuracy_top1_epoch_11.pth', 'epoch_12.pth.part', 'iter_99.pth'):
        save(tmp_path / name)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_10.pth'))
    return tmp_path


def config(work_dir, **hook):
    return Config(dict(work_dir=str(work_dir), default_hooks=dict(checkpoint=hook)))


def find(work_dir):
    return find_checkpoint(config(work_dir))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b'')


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def punch(path):
    """A copy that skipped a block: the size and both ends are right."""
    content = bytearray(save(path, seed=1).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 512] = bytes(512)
    path.write_bytes(content)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    torch.load(path)  # PyTorch does not mind


DAMAGES = [truncate, empty, zero, punch, flip]


@pytest.mark.parametrize('damage', [*DAMAGES, lambda path: path.unlink()])
def test_one_before_a_broken_one_is_found_with_a_warning(work_dir, damage, monkeypatch):
    said = []
    monkeypatch.setattr('gcp_mm.runtime.resume.print_log', lambda text, **_: said.append(text))
    assert find(work_dir) == str(work_dir / 'epoch_10.pth')
    assert not said
    damage(work_dir / 'epoch_10.pth')
    assert find(work_dir) == str(work_dir / 'epoch_9.pth')
    (warning,) = said
    assert f"checkpoint '{work_dir / 'epoch_10.pth'}'" in warning
    assert f"Resuming from '{work_dir / 'epoch_9.pth'}' instead" in warning


@pytest.mark.parametrize('damage', [truncate, flip])
def test_broken_file_named_by_hand_is_an_error(work_dir, damage):
    path = work_dir / 'epoch_10.pth'
    damage(path)
    with pytest.raises(ValueError, match=rf"checkpoint '{path}' (cannot be read|is damaged) \("):
        set_resume(config(work_dir), str(path))


def test_only_broken_ones_are_an_error(work_dir):
    for number, damage in ((2, empty), (9, truncate), (10, flip)):
        damage(work_dir / f'epoch_{number}.pth')
    with pytest.raises(ValueError, match=r'epoch_10.*epoch_9.*epoch_2\.pth.*To start anew, remove'):
        find(work_dir)


def test_missing_checkpoint_that_is_named_is_an_error(tmp_path):
    """Its disk may not be there: not a reason to start anew."""
    (tmp_path / 'last_checkpoint').write_text('elsewhere/epoch_3.pth')
    with pytest.raises(ValueError, match=r"'elsewhere/epoch_3\.pth' does not exist"):
        find(tmp_path)


@pytest.mark.parametrize('latest', [None, ''])
def test_without_the_name_of_the_latest(work_dir, latest):
    """As a kill leaves it while mmengine's own hook writes it."""
    (work_dir / 'last_checkpoint').unlink()
    if latest is not None:
        (work_dir / 'last_checkpoint').write_text(latest)
    assert find(work_dir) == str(work_dir / 'epoch_10.pth')
    assert find_checkpoint(config(work_dir, by_epoch=False)) == str(work_dir / 'iter_99.pth')


def test_without_a_name_the_last_one_written_is_taken(work_dir):
    """An earlier run of more epochs may have left others."""
    (work_dir / 'last_checkpoint').write_text('')
    os.utime(work_dir / 'epoch_10.pth', (1, 1))
    assert find(work_dir) == str(work_dir / 'epoch_9.pth')


def test_later_ones_of_another_run_are_not_taken(work_dir):
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_9.pth'))
    assert find(work_dir) == str(work_dir / 'epoch_9.pth')
    empty(work_dir / 'epoch_9.pth')
    assert find(work_dir) == str(work_dir / 'epoch_2.pth')


@pytest.mark.parametrize(
    ('times', 'found'),
    [
        (dict(epoch_9='20260101_000001', epoch_10='20260101_000002'), 'epoch_10'),
        (dict(epoch_9='20260101_000002', epoch_10='20260101_000001'), 'epoch_9'),
        (dict(epoch_9='20260101_000001', epoch_10=None), 'epoch_9'),
        (dict(epoch_9=None, epoch_10='20260101_000002'), 'epoch_2'),
    ],
)
def test_later_one_that_the_run_could_not_name(work_dir, times, found):
    """It was saved after the one that is named; None: the file is cut short."""
    for name, time in times.items():
        path = work_dir / f'{name}.pth'
        torch.save(dict(meta=dict(time=time), state_dict={}), path)
        if time is None:
            truncate(path)
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_9.pth'))
    assert find(work_dir) == str(work_dir / f'{found}.pth')


def test_copied_run_continues_from_its_own(work_dir, tmp_path_factory):
    copied = shutil.copytree(work_dir, tmp_path_factory.mktemp('copy') / 'run')
    assert find(copied) == str(copied / 'epoch_10.pth')
    shutil.rmtree(work_dir)
    assert find(copied) == str(copied / 'epoch_10.pth')


@pytest.mark.parametrize(
    ('hook', 'name'),
    [
        ({}, '{run}/epoch_10.pth'),
        (dict(by_epoch=False), '{run}/iter_8.pth'),
        (dict(filename_tmpl='net-{}.pth', out_dir='{root}/out'), '{root}/out/run/net-7.pth'),
    ],
)
def test_where_the_config_says(tmp_path, hook, name):
    run, out = tmp_path / 'run', tmp_path / 'out' / 'run'
    for folder in (run, out):
        folder.mkdir(parents=True)
        for file in ('epoch_10.pth', 'iter_8.pth', 'net-7.pth', 'net-x.pth'):
            save(folder / file)
    hook = {
        key: value.format('{}', root=tmp_path) if isinstance(value, str) else value
        for key, value in hook.items()
    }
    cfg = config(run, **hook)
    set_resume(cfg, 'auto')
    assert cfg.resume is True
    assert cfg.load_from == name.format(root=tmp_path, run=run)


def test_nothing_to_resume_from_starts_as_the_config_says(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('')
    cfg = Config(dict(work_dir=str(tmp_path), load_from='start.pth', resume=True))
    set_resume(cfg, 'auto')
    assert cfg.resume is False
    assert cfg.load_from == 'start.pth'
