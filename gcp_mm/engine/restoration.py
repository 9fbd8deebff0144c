"""Going back to a checkpoint in the middle of a run, at lower learning rates."""

from mmengine.device import get_device
from mmengine.runner import Runner

from .divergence import replaced, spoilt

RATES = ('lr', 'initial_lr', 'max_lr', 'min_lr')  # of a group of parameters, or its scheduler


def restore(runner: Runner, path: str, scale: float) -> bool:
    """Load weights, buffers and optimizer state, and scale the rest of the learning rates.

    The scaled rates are part of checkpoints saved later, and so of runs that resume from them.

    Args:
        runner: in training.
        path: of a checkpoint of this run.
        scale: factor of the learning rates.

    Returns:
        Whether the weights in the checkpoint are finite.
    """
    with replaced(runner, '_resume', True):  # EMAHook: the trained weights, not their average
        checkpoint = runner.load_checkpoint(path, map_location=get_device(), strict=True)
    wrapper = runner.optim_wrapper
    # Those of the schedule today, not those of the checkpoint
    settings = [{k: v for k, v in g.items() if k != 'params'} for g in wrapper.param_groups]
    if 'optimizer' in checkpoint:
        wrapper.load_state_dict(checkpoint['optimizer'])
    else:
        runner.logger.warning(f'{path} holds no optimizer state: momentum starts anew')
        wrapper.optimizer.state.clear()
    for group, values in zip(wrapper.param_groups, settings, strict=True):
        scaled = {key: values[key] * scale for key in RATES if key in values}
        group.update({**values, **scaled})
    for scheduler in runner.param_schedulers or ():
        # ReduceOnPlateau has none, and goes on from the rate as it is.
        if scheduler.param_name == 'lr' and hasattr(scheduler, 'base_values'):
            scheduler.base_values = [value * scale for value in scheduler.base_values]
    return not spoilt(checkpoint['state_dict'])
