"""Transformers of SoT: tokens from dense blocks, for a head of all tokens.

Xie et al., SoT: Delving Deeper into Classification Head for Transformer,
https://arxiv.org/abs/2104.10935, and the authors' code. The head is :class:`.SoTHead`.
"""

from typing import Any

from mmengine.registry import MODELS
from mmpretrain.models.backbones import SwinTransformer, VisionTransformer
from mmpretrain.models.backbones.t2t_vit import get_sinusoid_encoding
from mmpretrain.models.utils import to_2tuple

from .token_embed import DenseTokenEmbed


def _arch(embed_dims: int, num_layers: int, num_heads: int, mlp_ratio: float) -> dict[str, int]:
    return dict(
        embed_dims=embed_dims,
        num_layers=num_layers,
        num_heads=num_heads,
        feedforward_channels=int(mlp_ratio * embed_dims),
    )


# force: the class takes the place of the function that imported this module.
@MODELS.register_module(force=True)
class SoTVisionTransformer(VisionTransformer):
    """MMPretrain's VisionTransformer with dense token embedding and fixed sinusoidal positions.

    Args:
        arch: 'sot-tiny', 'sot-small', 'sot-base', or a name or dict of the parent's.
        patch_size: 4, 8 or 16, pixels from one token to the next.
        qkv_bias: whether queries, keys and values have a bias; SoT's have none.
        out_type: as the parent's; the default 'raw' is what :class:`.SoTHead` takes.
        **kwargs: further arguments of :class:`mmpretrain.models.backbones.VisionTransformer`.

    Raises:
        ValueError: for another `patch_size`, or images whose size it does not divide.
    """

    arch_zoo = {  # noqa: RUF012
        **VisionTransformer.arch_zoo,
        'sot-tiny': _arch(240, 12, 4, 2.5),
        'sot-small': _arch(384, 14, 6, 3.5),
        'sot-base': _arch(528, 24, 8, 3),
    }

    def __init__(
        self,
        arch: str | dict = 'sot-small',
        patch_size: int = 16,
        qkv_bias: bool = False,
        out_type: str = 'raw',
        **kwargs: Any,
    ) -> None:
        super().__init__(
            arch=arch, patch_size=patch_size, qkv_bias=qkv_bias, out_type=out_type, **kwargs
        )
        self.patch_embed = _token_embed(self, patch_size, kwargs)
        positions = get_sinusoid_encoding(*self.pos_embed.shape[1:])
        del self.pos_embed
        self.register_buffer('pos_embed', positions)
        if self.frozen_stages > 0:
            self._freeze_stages()

    def init_weights(self) -> None:
        """Initialize as the grandparent does: the parent draws the positions at random."""
        super(VisionTransformer, self).init_weights()

    def train(self, mode: bool = True) -> None:
        """As the parent's; the batch normalization of a frozen embedding stays in evaluation."""
        super().train(mode)
        if self.frozen_stages > 0:
            self.patch_embed.eval()


@MODELS.register_module(force=True)
class SoTSwinTransformer(SwinTransformer):
    """MMPretrain's SwinTransformer with dense token embedding.

    Args:
        arch: a name or dict of the parent's.
        patch_size: 4, 8 or 16, pixels from one token to the next.
        **kwargs: further arguments of :class:`mmpretrain.models.backbones.SwinTransformer`.

    Raises:
        ValueError: for another `patch_size`, or images whose size it does not divide.
    """

    def __init__(self, arch: str | dict = 'tiny', patch_size: int = 4, **kwargs: Any) -> None:
        super().__init__(arch=arch, patch_size=patch_size, **kwargs)
        self.patch_embed = _token_embed(self, patch_size, kwargs)
        self._freeze_stages()


def _token_embed(backbone: Any, patch_size: int, kwargs: dict) -> DenseTokenEmbed:
    img_size = to_2tuple(kwargs.get('img_size', 224))
    in_channels = kwargs.get('in_channels', 3)
    return DenseTokenEmbed(backbone.embed_dims, patch_size, img_size, in_channels)
