"""Tokens of an image by dense blocks of convolutions, in place of one convolution per patch.

Xie et al., SoT: Delving Deeper into Classification Head for Transformer,
https://arxiv.org/abs/2104.10935; sizes as in the authors' code.
"""

from mmpretrain.models.backbones.densenet import DenseBlock
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
