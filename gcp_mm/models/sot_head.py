"""Second-order head of transformers: cross-covariances of the tokens beside the class token.

Xie et al., So-ViT: Mind Visual Tokens for Vision Transformer, https://arxiv.org/abs/2104.10935.
Without svPN, with channels dropped instead, it is the head that DropCov gives to transformers (Wang
et al., NeurIPS 2022, https://openreview.net/forum?id=QLGuUwDx4S). The authors' code drops tokens
there, not channels, and subtracts one mean of all tokens and channels, not one of each channel.
"""

from typing import Any

import torch
from mmengine.registry import MODELS
from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from ..ops import svpn
from ..ops.arguments import check_integer
from ..ops.covariance import cross_covariance
from ..ops.tokens import split_tokens


# force: the class takes the place of the function that imported this module.
@MODELS.register_module(force=True)
class SoTHead(ClsHead):
    """Classifier of the tokens' cross-covariances, and of the class token where there is one.

    Each of `num_heads` heads projects the tokens to queries and keys of `width` channels. Their
    cross-covariances are normalized, flattened and classified; the logits of the class token are
    added. The backbone has to give all tokens, in MMPretrain by ``out_type='raw'``.

    Args:
        num_classes: number of classes.
        in_channels: channels of a token.
        num_heads: number of cross-covariances.
        width: channels of each, so that the classifier has num_heads * width^2 inputs.
        class_tokens: number of leading tokens that are not positions. The first one is classified
            too. 0 for backbones without one, such as Swin, which may also give a feature map.
        norm: 'svpn' (:func:`gcp_mm.ops.svpn` with a start vector that all heads share) or 'none'.
        channel_dropout: probability to drop a channel of queries and keys in training. DropCov's
            code has 0.2 with norm='none'.
        dropout: probability to drop an input of the classifier in training.
        init_cfg: initialization; the default is a truncated normal of std 0.02 for linear layers.
        **kwargs: arguments of :class:`mmpretrain.models.heads.ClsHead`.

    Raises:
        TypeError, ValueError: for numbers out of range or an unknown `norm`.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        num_heads: int = 6,
        width: int = 24,
        class_tokens: int = 1,
        norm: str = 'svpn',
        channel_dropout: float = 0.0,
        dropout: float = 0.0,
        init_cfg: dict | None = dict(type='TruncNormal', layer='Linear', std=0.02),
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg=init_cfg, **kwargs)
        sizes = dict(num_classes=num_classes, in_channels=in_channels, num_heads=num_heads)
        for name, value in sizes.items():
            check_integer(name, value)
        check_integer('width', width, low=2)
        check_integer('class_tokens', class_tokens, low=0)
        if norm not in ('svpn', 'none'):
            raise ValueError(f"norm: expected 'svpn' or 'none', got {norm!r}")
        self.in_channels, self.num_heads, self.width = in_channels, num_heads, width
        self.class_tokens = class_tokens
        self.project = nn.Linear(in_channels, 2 * num_heads * width, bias=False)
        self.start = nn.Parameter(torch.randn(width)) if norm == 'svpn' else None
        self.channel_dropout = nn.Dropout(channel_dropout)
        self.dropout = nn.Dropout(dropout)
        self.fc_class = nn.Linear(in_channels, num_classes) if class_tokens else nn.Identity()
        self.fc = nn.Linear(num_heads * width**2, num_classes)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> tuple[Tensor | None, Tensor]:
        """Inputs of the linear layers.

        Args:
            feats: tuple whose last element counts: (B, N, C) tokens, or a (B, C, H, W) map.

        Returns:
            The class token, (B, C), or None; the cross-covariances, (B, num_heads * width^2).
        """
        first, tokens = split_tokens(feats, self.in_channels, self.class_tokens)
        queries_and_keys = self.project(tokens).unflatten(2, (2, self.num_heads, self.width))
        queries, keys = queries_and_keys.permute(2, 0, 3, 1, 4)  # (B, heads, N, width) each
        if self.training and self.channel_dropout.p:
            kept = self.channel_dropout(torch.ones_like(queries[:, :, :1]))
            queries, keys = queries * kept, keys * kept
        matrices = cross_covariance(queries, keys)
        if self.start is not None:
            matrices = svpn(matrices.flatten(0, 1), self.start).view_as(matrices)
        return first, self.dropout(matrices.flatten(1).to(self.fc.weight.dtype))

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Logits, (B, num_classes), of what :meth:`pre_logits` takes."""
        first, vectors = self.pre_logits(feats)
        logits = self.fc(vectors)
        return logits if first is None else logits + self.fc_class(first)
