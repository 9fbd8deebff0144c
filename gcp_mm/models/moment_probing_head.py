"""Moment Probing: a classifier of first and second moments of a frozen backbone's tokens.

Gao et al., Tuning Pre-trained Model via Moment Probing, ICCV 2023,
https://arxiv.org/abs/2307.11342. Sizes as in the authors' code, which scales the columns of the
cross-covariances, not the rows, and subtracts one mean of all tokens and channels.
"""

from typing import Any

from mmengine.registry import MODELS
from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..ops.arguments import check_integer
from ..ops.covariance import cross_covariance
from ..ops.tokens import split_tokens


# force: the class takes the place of the function that imported this module.
@MODELS.register_module(force=True)
class MomentProbingHead(ClsHead):
    """Mean of two linear classifiers: of the class token, and of cross-covariances of the tokens.

    The tokens are projected and split into `num_heads` heads. Those of neighbors have a
    cross-covariance; each of its rows is scaled to length 1, and two convolutions with stride 2
    shrink them. Freeze the backbone, in MMPretrain by ``frozen_stages``.

    Args:
        num_classes: number of classes.
        in_channels: channels of a token.
        hidden_channels: channels of all heads together.
        num_heads: number of heads, at least 2.
        class_tokens: number of leading tokens that are not positions. The first one is classified.
            With 0 it is the mean of the positions after a layer normalization, for CNNs and Swin.
        init_cfg: initialization; the default is PyTorch's own.
        **kwargs: arguments of :class:`mmpretrain.models.heads.ClsHead`.

    Raises:
        TypeError, ValueError: for numbers out of range, `hidden_channels` that `num_heads` does
            not divide, or heads of fewer than 7 channels, of which the convolutions leave nothing.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        hidden_channels: int = 512,
        num_heads: int = 4,
        class_tokens: int = 1,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg=init_cfg, **kwargs)
        check_integer('num_classes', num_classes)
        check_integer('in_channels', in_channels)
        check_integer('num_heads', num_heads, low=2)
        check_integer('class_tokens', class_tokens, low=0)
        check_integer('hidden_channels', hidden_channels)
        width = hidden_channels // num_heads
        if hidden_channels % num_heads or width < 7:
            raise ValueError(
                f'hidden_channels, num_heads: expected heads of equal width, at least 7, got '
                f'{hidden_channels} channels for {num_heads} heads'
            )
        self.in_channels, self.num_heads, self.class_tokens = in_channels, num_heads, class_tokens
        pairs = num_heads - 1
        self.project = nn.Linear(in_channels, hidden_channels)
        self.norm = nn.LayerNorm(width)
        self.shrink = nn.Sequential(
            nn.Conv2d(pairs, pairs, kernel_size=3, stride=2, bias=False),
            nn.GELU(),
            nn.Conv2d(pairs, pairs, kernel_size=3, stride=2, bias=False),
        )
        side = ((width - 3) // 2 + 1 - 3) // 2 + 1
        self.mean_norm = nn.Identity() if class_tokens else nn.LayerNorm(in_channels)
        self.fc_first = nn.Linear(in_channels, num_classes)
        self.fc_second = nn.Linear(pairs * side**2, num_classes)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Inputs of the linear layers.

        Args:
            feats: tuple whose last element counts: (B, N, C) tokens, or a (B, C, H, W) map.

        Returns:
            The first moment, (B, C), and what is left of the second, (B, L).
        """
        first, tokens = split_tokens(feats, self.in_channels, self.class_tokens)
        if first is None:
            first = self.mean_norm(tokens.mean(1))
        heads = self.norm(self.project(tokens).unflatten(2, (self.num_heads, -1))).transpose(1, 2)
        second = normalize(cross_covariance(heads[:, :-1], heads[:, 1:]), dim=-1)
        return first, self.shrink(second.to(self.fc_second.weight.dtype)).flatten(1)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Logits, (B, num_classes), of what :meth:`pre_logits` takes."""
        first, second = self.pre_logits(feats)
        return (self.fc_first(first) + self.fc_second(second)) / 2
