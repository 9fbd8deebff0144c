"""Random numbers that depend on the seed and the epoch, not on what a run did before."""

from mmengine.dataset import worker_init_fn
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import set_random_seed
from numpy.random import SeedSequence


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Seed of one epoch in one process, in [0, 2^32).

    Hashed, not summed: epoch 1 of seed 0 has nothing in common with epoch 0 of seed 1.

    Args:
        seed: of the run, not negative.
        epoch: counted from 0.
        rank: of the process.
    """
    return int(SeedSequence((seed, epoch, rank)).generate_state(1)[0])


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed Python, NumPy and PyTorch before every epoch, from the run's seed, epoch and rank.

    mmengine seeds once, at the start of a run, and checkpoints do not contain the states of random
    generators. With this hook a resumed run draws the same random numbers as an uninterrupted one.
    On a CPU, with `randomness.seed` and a loop by epochs, the final weights are bit-identical; see
    docs/guides/resuming.md for the conditions. A `worker_init_fn` of the config is kept.
    """

    priority = 'LOWEST'  # what other hooks draw before an epoch is not the training's

    def before_train(self, runner):
        loader = runner.train_dataloader
        seeding = getattr(loader, 'worker_init_fn', None)
        # mmengine's own gives the workers the same seeds in every epoch. Without it PyTorch draws
        # them from the generator that is seeded below.
        if getattr(seeding, 'func', None) is worker_init_fn:
            loader.worker_init_fn = None

    def before_train_epoch(self, runner):
        set_random_seed(epoch_seed(runner.seed, runner.epoch, get_rank()))
        # Persistent workers would go on with the numbers of the last epoch; dropped, they end.
        runner.train_dataloader._iterator = None
