"""Detectors saved by MMDetection before its version 2.0, as the paper's authors released theirs.

Two things changed in 2.0. The heads moved into `roi_head`. The background, class 0 of C + 1, became
the last class of the classification, and its outputs of boxes and masks went. The backbone, the FPN
and the RPN, whose scores are of a sigmoid, are as they were.

MMDetection's own `tools/model_converters/upgrade_model_version.py` gives the same names and shapes,
but of the biases of `fc_reg` and `conv_logits` it keeps those of the background and drops those of
the last class, and it rotates the biases of `rpn_cls` by one anchor.
"""

import torch
from torch import Tensor

from .key_map import rename, some

_RULES = (
    (r'((?:backbone|neck|rpn_head)\..+)', r'\1'),
    (r'((?:bbox_head|mask_head)\..+)', r'roi_head.\1'),
)
# Outputs for each class of the layers that know of classes
_OUTPUTS = dict(fc_cls=1, fc_reg=4, conv_logits=1)


def is_mmdetection1(state: dict[str, Tensor]) -> bool:
    """Whether weights are a two-stage detector's, by the names before MMDetection 2.0."""
    return 'bbox_head.fc_cls.weight' in state and 'rpn_head.rpn_cls.weight' in state


def upgrade_detector(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Give a Faster or Mask R-CNN's weights the names and the order of classes of MMDetection 2 on.

    Args:
        state: weights by name, of a detector with a sigmoid in its RPN.

    Returns:
        The weights, and the number of classes without the background.

    Raises:
        ValueError: for names of another detector, an RPN with a softmax, or heads whose numbers of
            outputs do not belong together.
    """
    new = rename(state, _RULES)
    scores, deltas = _outputs(state, 'rpn_head.rpn_cls'), _outputs(state, 'rpn_head.rpn_reg')
    if deltas != 4 * scores:
        raise ValueError(
            f'expected one score for each anchor of the RPN, got {scores} for {deltas} outputs of '
            'rpn_reg: an RPN with a softmax cannot be converted'
        )
    num_classes = _outputs(state, 'bbox_head.fc_cls') - 1
    wrong = []
    for key, value in new.items():
        each = _OUTPUTS.get(key.split('.')[-2])
        if each is None:
            continue
        length = value.shape[0] if value.ndim else 0
        if length == each * (num_classes + 1):
            background = value[:each] if '.fc_cls.' in key else value[:0]
            new[key] = torch.cat([value[each:], background])
        elif length != each or '.fc_cls.' in key:  # all classes can share boxes and masks
            wrong.append(f'{key} {tuple(value.shape)}')
    if wrong:
        raise ValueError(
            f'expected outputs for {num_classes} classes and the background, got {some(wrong)}'
        )
    return new, num_classes


def _outputs(state: dict[str, Tensor], layer: str) -> int:
    weight = state.get(f'{layer}.weight')
    return weight.shape[0] if weight is not None and weight.ndim else 0
