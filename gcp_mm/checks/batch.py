"""The learning rate is for the batch that the processes of the run make."""

import os

from mmengine.config import Config

from .finding import Finding

# Variables of the environment that hold the number of processes, by launcher
WORLD_SIZES = dict(
    pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE', none=None
)


def processes(launcher: str) -> int:
    """Number of processes of a run that is launched with `launcher`, as its environment says."""
    variable = WORLD_SIZES[launcher]
    return int(os.environ.get(variable, 1)) if variable else 1


def check_batch(cfg: Config, gpus: int) -> list[Finding]:
    """Compare the batch with the one that the config's learning rate is for.

    Args:
        cfg: the final config.
        gpus: processes of the run, each with a batch of the dataloader's.
    """
    rule = cfg.get('auto_scale_lr') or {}
    base = rule.get('base_batch_size')
    images = (cfg.get('train_dataloader') or {}).get('batch_size')
    wrapper = cfg.get('optim_wrapper') or {}
    rate = (wrapper.get('optimizer') or {}).get('lr')
    if not base or not images or rate is None:
        return [
            Finding(
                'skipped',
                'the config does not say for which batch its learning rate is: set '
                'auto_scale_lr.base_batch_size',
            )
        ]
    steps = wrapper.get('accumulative_counts', 1)
    batch = images * gpus * steps
    made = f'{images} images x {gpus} process{"es" if gpus > 1 else ""}'
    made += f' x {steps} accumulated' if steps > 1 else ''
    if batch == base:
        return [Finding('ok', f'lr={rate:g} is for a batch of {base}: {made}')]
    if rule.get('enable'):
        # mmengine leaves accumulation out of its ratio.
        scaled = rate * images * gpus / base
        return [Finding('ok', f'lr={rate:g} for a batch of {base} is scaled to {scaled:g}: {made}')]
    return [
        Finding(
            'warning',
            f'auto_scale_lr.base_batch_size says {base}, and {made} are {batch}: if that is what '
            f'lr={rate:g} was found for, the linear rule gives lr={rate * batch / base:g}: pass '
            f'--auto-scale-lr, {_other_way(images, steps, base)}. If not, set base_batch_size',
        )
    ]


def _other_way(images, steps, base):
    needed, rest = divmod(base, images * steps)
    if rest:
        return f'or set train_dataloader.batch_size so that all processes together have {base}'
    return f'or run {needed} process{"es" if needed > 1 else ""}'
