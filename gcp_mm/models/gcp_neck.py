"""Global covariance pooling as a neck between any backbone of MMPretrain and a linear head."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..ops import GlobalCovariancePool2d
from .pretrained import StrictlyPretrained


@MODELS.register_module()
class GlobalCovariancePooling(StrictlyPretrained, GlobalCovariancePool2d, BaseModule):
    """:class:`gcp_mm.ops.GlobalCovariancePool2d` with mmcv's layers, for every feature map.

    The head's `in_channels` must be :attr:`out_channels`::

        neck=dict(type='GlobalCovariancePooling', in_channels=2048),
        head=dict(type='LinearClsHead', in_channels=32896, ...)

    Args:
        in_channels: channels of the feature maps. This, the arguments up to `method`, and
            `exponent`, `dropcov` and `class_tokens` are those of
            :class:`gcp_mm.ops.GlobalCovariancePool2d`.
        conv_cfg: config of the reductions' convolutions.
        norm_cfg: config of their normalization layers.
        act_cfg: config of their activations. The paper's MobileNetV2 and ShuffleNetV2 have ReLU6.
        init_cfg: initialization; the default is He's, fan-out, for the convolutions. A
            `Pretrained` one, with `prefix='neck.'`, has to fill all reductions: see
            :func:`gcp_mm.checkpoints.load_pretrained`.

    Raises:
        TypeError, ValueError: as :class:`gcp_mm.ops.GlobalCovariancePool2d` does.
    """

    def __init__(
        self,
        in_channels: int,
        reduction: Sequence[int] = (256,),
        iterations: int = 5,
        norm: str = 'newton_schulz',
        method: str = 'auto',
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = dict(type='BN'),
        act_cfg: dict | None = dict(type='ReLU'),
        init_cfg: dict | Sequence[dict] | None = (
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', val=1, layer='_BatchNorm'),
        ),
        exponent: float = 0.5,
        dropcov: bool = False,
        class_tokens: int | None = None,
    ) -> None:
        def block(c_in: int, c_out: int) -> nn.Module:
            layers = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
            return ConvModule(c_in, c_out, kernel_size=1, bias=False, **layers)

        super().__init__(
            in_channels,
            reduction,
            iterations,
            norm,
            method,
            block,
            exponent,
            dropcov,
            class_tokens,
        )
        self.init_cfg = deepcopy(init_cfg)  # BaseModule's, which was made without it

    def forward(self, inputs: Tensor | tuple[Tensor, ...] | list[Tensor]) -> Any:
        """Pool one feature map, or each of a tuple or list of them.

        Args:
            inputs: (B, in_channels, H, W), or a tuple or list of such.

        Returns:
            (B, out_channels), or a tuple of such; for the dtype see
            :meth:`gcp_mm.ops.GlobalCovariancePool2d.forward`.

        Raises:
            ValueError: for features of another shape, or features that are not finite.
        """
        if isinstance(inputs, tuple | list):
            return tuple(map(super().forward, inputs))
        return super().forward(inputs)
