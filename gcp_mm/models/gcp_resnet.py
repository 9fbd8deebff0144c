"""ResNet whose last stage, conv5, keeps its resolution, or loses it in one of two ways.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, sections 3.2, 4.4 and Table 8.
"""

from typing import Any

from mmengine.registry import MODELS
from mmpretrain.models.backbones import ResNet
from torch import Tensor, nn

from .pretrained import StrictlyPretrained

# Stride of conv5's first block under each treatment of its down-sampling.
CONV5_STRIDES = {'none': 1, 'stride': 2, 'maxpool': 1}


# force: the class takes the place of the function that imported this module.
@MODELS.register_module(force=True)
class GCPResNet(StrictlyPretrained, ResNet):
    """MMPretrain's ResNet with a choice of down-sampling in conv5, for both frameworks.

    The three variants have the same weights under the same names, which are those of the ResNets
    of torchvision and MMDetection, so that one pretrained backbone loads into each of them:

    - ``'none'``: no down-sampling, a map of 14x14 positions for a 224x224 image. The paper
      pretrains its GCP networks so: more positions to estimate the covariance from.
    - ``'stride'``: the ordinary ResNet, stride 2 in conv5_1. GCP_D in the paper's detectors.
    - ``'maxpool'``: a 3x3 max-pooling of stride 2 before conv5_1, which keeps stride 1. GCP_M.

    'stride' and 'maxpool' give maps of the same size, odd sizes included.

    Unlike in its parent, the last BN of a residual block is not initialized to zero (the paper's
    networks start so) and a `Pretrained` `init_cfg` must fill the whole backbone: see
    :func:`gcp_mm.checkpoints.load_pretrained`.

    Args:
        depth: 18, 34, 50, 101 or 152.
        conv5: treatment of conv5's down-sampling: 'none', 'stride' or 'maxpool'.
        zero_init_residual: whether to start the last BN of each residual block at zero.
        **kwargs: further arguments of :class:`mmpretrain.models.backbones.ResNet`, except
            `strides`, which `conv5` settles.

    Raises:
        TypeError: if `kwargs` names `strides`.
        ValueError: if `depth` or `conv5` is unknown, or `num_stages` is not 4.
    """

    def __init__(
        self,
        depth: int,
        conv5: str = 'none',
        zero_init_residual: bool = False,
        **kwargs: Any,
    ) -> None:
        if depth not in self.arch_settings:
            raise ValueError(f'depth: expected one of {tuple(self.arch_settings)}, got {depth!r}')
        if conv5 not in CONV5_STRIDES:
            raise ValueError(f'conv5: expected one of {tuple(CONV5_STRIDES)}, got {conv5!r}')
        if kwargs.get('num_stages', 4) != 4:
            raise ValueError(
                f'num_stages={kwargs["num_stages"]!r}: conv5 is the fourth stage; leave it out'
            )
        super().__init__(
            depth,
            strides=(1, 2, 2, CONV5_STRIDES[conv5]),
            zero_init_residual=zero_init_residual,
            **kwargs,
        )
        self.conv5 = conv5
        # Padding 1 gives ceil(n / 2) positions, as the strided 3x3 convolution does. The pooling
        # is applied in forward: wrapped around layer4 it would rename that layer's weights.
        self.conv5_pool = (
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
            if conv5 == 'maxpool'
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stages in `out_indices`.

        Args:
            x: images, (B, in_channels, H, W).

        Returns:
            Tuple of (B, C, h, w), h = ceil(H / 4), ceil(H / 8), ceil(H / 16) and, for conv5,
            ceil(H / 16) with conv5='none', else ceil(H / 32); w likewise.
        """
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        x = self.maxpool(x)
        outs = []
        for i, name in enumerate(self.res_layers):
            if name == 'layer4':
                x = self.conv5_pool(x)
            x = getattr(self, name)(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def train(self, mode: bool = True) -> 'GCPResNet':
        """Set the mode, frozen stages and frozen BN apart.

        Args:
            mode: training (True) or evaluation (False).

        Returns:
            The network itself, as every module does; its parent returns None.
        """
        super().train(mode)
        return self
