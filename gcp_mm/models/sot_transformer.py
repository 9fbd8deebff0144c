"""Transformers of SoT: tokens from dense blocks, for a head of all tokens.

Xie et al., SoT: Delving Deeper into Classification Head for Transformer,
https://arxiv.org/abs/2104.10935; sizes as in the authors' code. The head is :class:`.SoTHead`.
"""

from typing import Any

from mmengine.registry import MODELS
from mmpretrain.models.backbones import SwinTransformer, VisionTransformer
from mmpretrain.models.backbones.densenet import DenseBlock
from mmpretrain.models.backbones.t2t_vit import get_sinusoid_encoding
from mmpretrain.models.utils import to_2tuple
from torch import Tensor, nn

WIDTH, GROWTH, LAYERS = 64, 16, 6  # of the stem; of a dense block


class DenseTokenEmbed(nn.Module):
    """Stem and three dense blocks; takes the place of MMPretrain's `PatchEmbed`.

    The stem halves height and width. So does the transition behind a dense block, until the
    patches have `stride` pixels: behind all three blocks for 16, behind the first one for 4.

    Args:
        embed_dims: channels of a token.
        stride: 4, 8 or 16, pixels from one token to the next.
        img_size: height and width of the images, in pixels, multiples of `stride`.
        in_channels: channels of the images.

    Raises:
        ValueError: for another `stride`, or an `img_size` that it does not divide.
    """

    def __init__(
        self,
        embed_dims: int,
        stride: int = 16,
        img_size: tuple[int, int] = (224, 224),
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if stride not in (4, 8, 16):
            raise ValueError(f'patch_size: expected 4, 8 or 16, got {stride!r}')
        if any(size % stride for size in img_size):
            raise ValueError(
                f'img_size: expected multiples of patch_size={stride}, got {tuple(img_size)}'
            )
        self.init_out_size = img_size[0] // stride, img_size[1] // stride
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, WIDTH, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)
        )
        blocks, width = [], WIDTH
        for halved in (stride >= 4, stride >= 8, stride >= 16):
            blocks += [
                DenseBlock(LAYERS, width, bn_size=2, growth_rate=GROWTH),
                nn.BatchNorm2d(width + LAYERS * GROWTH),
                nn.Conv2d(width + LAYERS * GROWTH, 2 * WIDTH, 1, bias=False),
                nn.AvgPool2d(2) if halved else nn.Identity(),
            ]
            width = 2 * WIDTH
        self.blocks = nn.Sequential(*blocks)
        self.projection = nn.Conv2d(2 * WIDTH, embed_dims, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens, (B, H W / stride^2, embed_dims), and their rows and columns."""
        x = self.projection(self.blocks(self.stem(x)))
        return x.flatten(2).mT, (x.shape[2], x.shape[3])


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
