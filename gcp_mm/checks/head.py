"""The head takes what the GCP neck before it gives."""

from collections.abc import Sequence

from mmengine.registry import MODELS

from .tree import name_of


def check_head(model: dict) -> str | None:
    """Raise ValueError unless the head takes vectors of the length its GCP neck gives.

    Args:
        model: config of the model. One without a GCP neck passes.

    Returns:
        In words, what was found; None where there is nothing to check.
    """
    neck, head = model.get('neck'), model.get('head')
    if isinstance(neck, Sequence):
        neck = neck[-1] if neck else None
    if not neck or name_of(neck) != 'GlobalCovariancePooling':
        return None
    right = MODELS.build(neck).out_channels
    if head and head.get('in_channels', right) != right:
        raise ValueError(
            f'model.head.in_channels={head["in_channels"]}, but the neck GlobalCovariancePooling '
            f'gives vectors of length {right}: set model.head.in_channels={right}'
        )
    return f'the neck gives vectors of length {right}, and the head takes them'
