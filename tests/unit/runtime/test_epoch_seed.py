"""Seeds of epochs; tests/integration/test_resume.py has what workers draw."""

from types import SimpleNamespace

from gcp_mm.runtime.epoch_seed import EpochSeedHook, epoch_seed


def test_worker_init_fn_of_the_config_is_kept():
    seeding = print
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(worker_init_fn=seeding))
    EpochSeedHook().before_train(runner)
    assert runner.train_dataloader.worker_init_fn is seeding


def test_seeds_have_nothing_in_common():
    arguments = [(seed, epoch, rank) for seed in range(4) for epoch in range(50) for rank in (0, 1)]
    seeds = [epoch_seed(*each) for each in arguments]
    assert len(set(seeds)) == len(seeds)
    assert seeds == [epoch_seed(*each) for each in arguments]
    assert all(0 <= seed < 2**32 for seed in seeds)  # NumPy's range
