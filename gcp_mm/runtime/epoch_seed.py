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

    mmengine seeds once, when a run starts, and a checkpoint holds no generator's state: what a
    resumed run draws (crops, mixed labels, dropout) is not what the interrupted one would have
    drawn. With this hook it is.

    Worker processes of the training's dataloader are started anew for every epoch, with seeds
    that PyTorch draws from the generator seeded here. mmengine's own seeds are the same whenever
    workers start, so that without `persistent_workers` every epoch is augmented alike; a
    `worker_init_fn` of the config is left as it is, and what it seeds is its own matter.

    Guaranteed on a CPU: a run by epochs with `randomness.seed` set, continued from a checkpoint
    with the optimizer's state, ends with the weights, bit for bit, of the run that was never
    interrupted, with any number of workers, given the same machine, packages, config, number of
    processes and of threads. Not guaranteed: GPUs, where some operations add in no fixed order
    (``randomness=dict(deterministic=True)`` forbids most of them); a run without a seed, which
    gets the first one's back but shuffles the images otherwise; loops by iterations, which are
    seeded when they start and not again; hooks that keep state of their own outside the
    checkpoint.
    """

    priority = 'LOWEST'  # what other hooks draw before an epoch is not the training's

    def before_train(self, runner):
        loader = runner.train_dataloader
        seeding = getattr(loader, 'worker_init_fn', None)
        if getattr(seeding, 'func', None) is worker_init_fn:  # mmengine's, with its arguments
            loader.worker_init_fn = None

    def before_train_epoch(self, runner):
        set_random_seed(epoch_seed(runner.seed, runner.epoch, get_rank()))
        # Persistent workers would go on with the numbers of the last epoch; dropped, they end.
        runner.train_dataloader._iterator = None
