"""From which checkpoint a run continues, and with which random numbers; see also test_faults."""

import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.fileio import get_file_backend
from mmengine.runner import Runner

from gcp_mm._io import write_atomically
from gcp_mm.checkpoints import check_intact, read_checkpoint
from gcp_mm.runtime.atomic_checkpoint import AtomicBackend
from gcp_mm.runtime.epoch_seed import EpochSeedHook, epoch_seed
from gcp_mm.runtime.launch import launch
from gcp_mm.runtime.resume import find_checkpoint, set_resume
from tests.helpers.equality import assert_equal


@pytest.fixture
def train(narrow_cls):
    """Train in this process, which spares seconds of imports."""

    def train(work_dir, resume=None, **changes):
        cfg = Config.fromfile(narrow_cls.config)
        pairs = [option.split('=', 1) for option in narrow_cls.options]
        cfg.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in pairs})
        cfg.merge_from_dict(
            dict(work_dir=str(work_dir), launcher='none', experiment_name=work_dir.name) | changes
        )
        for name in ('train_dataloader', 'val_dataloader'):
            cfg[name].collate_fn = dict(type='default_collate')
        if resume:
            set_resume(cfg, resume)
        launch(cfg, lambda runner: runner.train())

    return train


@pytest.mark.slow
def test_worker_processes(train, narrow_cls, tmp_path):
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    workers = {f'train_dataloader.{key}': 2 for key in ('num_workers', 'prefetch_factor')}
    workers['train_dataloader.persistent_workers'] = True
    train(whole, **workers, **{'default_hooks.checkpoint.max_keep_ckpts': -1})
    resumed.mkdir()
    shutil.copy(whole / 'epoch_1.pth', resumed)
    train(resumed, 'auto', **workers)
    assert_equal(narrow_cls.final(whole), narrow_cls.final(resumed))


def files(work_dir):
    return {path.name for path in work_dir.glob('*.pth*')}


class Draws(torch.utils.data.Dataset):
    """Each sample: one number of each generator."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return [random.random(), np.random.random(), torch.rand(()).item()]


@pytest.mark.parametrize('persistent', [False, True])
def test_what_workers_draw_depends_on_the_epoch_alone(persistent):
    def epochs(start):
        workers = dict(num_workers=2, persistent_workers=persistent)
        loader = Runner.build_dataloader(
            dict(
                **dict(dataset=Draws(), sampler=dict(type='DefaultSampler', shuffle=False)),
                **dict(batch_size=2, collate_fn=dict(type='default_collate'), **workers),
            ),
            seed=7,
        )
        hook, runner = EpochSeedHook(), SimpleNamespace(train_dataloader=loader, seed=7)
        hook.before_train(runner)
        for runner.epoch in range(start, 3):
            hook.before_train_epoch(runner)
            yield [value for batch in loader for column in batch for value in column.tolist()]

    whole = list(epochs(0))
    assert list(epochs(1)) == whole[1:]
    numbers = [value for epoch in whole for value in epoch]
    assert len(set(numbers)) == len(numbers) == 3 * 8 * 3  # no worker and no epoch as another


def test_worker_init_fn_of_the_config_is_kept():
    seeding = print
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(worker_init_fn=seeding))
    EpochSeedHook().before_train(runner)
    assert runner.train_dataloader.worker_init_fn is seeding


def test_outdated_and_best_are_removed_after_their_successors(train, tmp_path, monkeypatch):
    """Every removal finds the file that takes the place of the removed one."""
    seen = []
    remove = AtomicBackend.remove

    def watch(self, path):
        seen.append((str(path)[len(str(tmp_path)) + 1 :], files(tmp_path)))
        remove(self, path)

    monkeypatch.setattr(AtomicBackend, 'remove', watch)
    # The rule 'less' with accuracies near zero: decided here, whatever the network learns.
    values = iter([3.0, 2.0, 1.0])
    monkeypatch.setattr(
        'mmpretrain.evaluation.Accuracy.compute_metrics', lambda *_: {'top1': next(values)}
    )
    best = {'save_best': 'accuracy/top1', 'rule': 'less'}
    train(tmp_path, **{f'default_hooks.checkpoint.{key}': value for key, value in best.items()})
    name = 'best_accuracy_top1_epoch_{}.pth'
    for epoch in (1, 2):
        for old in (f'epoch_{epoch}.pth', name.format(epoch)):
            (present,) = [present for path, present in seen if path == old]
            assert old.replace(str(epoch), str(epoch + 1)).replace('top2', 'top1') in present
    assert len(seen) == 4
    assert files(tmp_path) == {'epoch_3.pth', name.format(3)}
    assert read_checkpoint(tmp_path / 'epoch_3.pth')['message_hub']['runtime_info'][
        'best_ckpt'
    ] == str(tmp_path / name.format(3))


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
    assert find_checkpoint(work_dir) == str(work_dir / 'epoch_10.pth')
    assert not said
    damage(work_dir / 'epoch_10.pth')
    assert find_checkpoint(work_dir) == str(work_dir / 'epoch_9.pth')
    (warning,) = said
    assert f"checkpoint '{work_dir / 'epoch_10.pth'}'" in warning
    assert f"Resuming from '{work_dir / 'epoch_9.pth'}' instead" in warning


@pytest.mark.parametrize('damage', DAMAGES)
def test_broken_file_named_by_hand_is_an_error(work_dir, damage):
    path = work_dir / 'epoch_10.pth'
    damage(path)
    with pytest.raises(ValueError, match=rf"checkpoint '{path}' (cannot be read|is damaged) \("):
        set_resume(Config(dict(work_dir=str(work_dir))), str(path))


def test_only_broken_ones_are_an_error(work_dir):
    for number, damage in ((2, empty), (9, truncate), (10, flip)):
        damage(work_dir / f'epoch_{number}.pth')
    with pytest.raises(ValueError, match=r'epoch_10.*epoch_9.*epoch_2\.pth.*To start anew, remove'):
        find_checkpoint(work_dir)


def test_missing_checkpoint_that_is_named_is_an_error(tmp_path):
    """Its disk may not be there: not a reason to start anew."""
    (tmp_path / 'last_checkpoint').write_text('elsewhere/epoch_3.pth')
    with pytest.raises(ValueError, match=r"'elsewhere/epoch_3\.pth' does not exist"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize('latest', [None, ''])
def test_without_the_name_of_the_latest(work_dir, latest):
    """As a kill leaves it while mmengine's own hook writes it."""
    (work_dir / 'last_checkpoint').unlink()
    if latest is not None:
        (work_dir / 'last_checkpoint').write_text(latest)
    assert find_checkpoint(work_dir) == str(work_dir / 'epoch_10.pth')
    assert find_checkpoint(work_dir, template='iter_{}.pth') == str(work_dir / 'iter_99.pth')


def test_later_ones_of_another_run_are_not_taken(work_dir):
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_9.pth'))
    assert find_checkpoint(work_dir) == str(work_dir / 'epoch_9.pth')
    empty(work_dir / 'epoch_9.pth')
    assert find_checkpoint(work_dir) == str(work_dir / 'epoch_2.pth')


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
    assert find_checkpoint(work_dir) == str(work_dir / f'{found}.pth')


def test_copied_run_continues_from_its_own(work_dir, tmp_path_factory):
    copied = shutil.copytree(work_dir, tmp_path_factory.mktemp('copy') / 'run')
    assert find_checkpoint(copied) == str(copied / 'epoch_10.pth')
    shutil.rmtree(work_dir)
    assert find_checkpoint(copied) == str(copied / 'epoch_10.pth')


@pytest.mark.parametrize(
    ('hook', 'name'),
    [
        (None, '{run}/epoch_10.pth'),
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
    hook = hook and {
        key: value.format('{}', root=tmp_path) if isinstance(value, str) else value
        for key, value in hook.items()
    }
    cfg = Config(dict(work_dir=str(run), default_hooks=dict(checkpoint=hook)))
    set_resume(cfg, 'auto')
    assert cfg.resume is True
    assert cfg.load_from == name.format(root=tmp_path, run=run)


def test_nothing_to_resume_from_starts_as_the_config_says(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('')
    cfg = Config(dict(work_dir=str(tmp_path), load_from='start.pth', resume=True))
    set_resume(cfg, 'auto')
    assert cfg.resume is False
    assert cfg.load_from == 'start.pth'


def test_old_format_is_read_as_a_whole(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(w=torch.ones(1000)), path, _use_new_zipfile_serialization=False)
    check_intact(path)
    truncate(path)
    with pytest.raises(ValueError, match='cannot be read'):
        check_intact(path)


def test_file_is_replaced_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / 'a'
    write_atomically(path, b'old')

    def full(*_):
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr('os.fsync', full)
        with pytest.raises(OSError, match='No space left on device; the file was not') as caught:
            write_atomically(path, b'new')
    assert (caught.value.errno, caught.value.filename) == (28, str(path))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b'old']
    (tmp_path / 'a.part').write_bytes(b'longer, of an attempt that was killed')
    get_file_backend(backend_args=dict(backend='atomic')).put(b'new', str(path))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b'new']


def test_seeds_have_nothing_in_common():
    arguments = [(seed, epoch, rank) for seed in range(4) for epoch in range(50) for rank in (0, 1)]
    seeds = [epoch_seed(*each) for each in arguments]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [epoch_seed(*each) for each in arguments]
    for seed in seeds[:3]:
        np.random.seed(seed)  # in its range
