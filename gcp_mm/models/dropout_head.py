"""A linear classifier with dropout before it, as MobileNetV2 has one.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018,
https://arxiv.org/abs/1801.04381; torchvision's MobileNetV2 has it, MMPretrain's has not.
"""

from typing import Any

from mmengine.registry import MODELS
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn


# force: the class takes the place of the function that imported this module.
@MODELS.register_module(force=True)
class DropoutLinearClsHead(LinearClsHead):
    """MMPretrain's LinearClsHead with dropout on its input, in training.

    Its weights are those of LinearClsHead, under the same names.

    Args:
        dropout: probability with which an input is zeroed; 0 is LinearClsHead itself.
        **kwargs: arguments of :class:`mmpretrain.models.heads.LinearClsHead`.

    Raises:
        ValueError: unless 0 <= `dropout` <= 1.
    """

    def __init__(self, dropout: float = 0.2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dropout = nn.Dropout(dropout)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Input of the linear layer.

        Args:
            feats: tuple of (B, in_channels) vectors, of which the last counts.

        Returns:
            (B, in_channels).
        """
        return self.dropout(super().pre_logits(feats))
