"""Global covariance pooling as a neck between any backbone of MMPretrain and a linear head.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, sections 3.1 and 4.1.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..ops.pooling import check_options, global_covariance_pooling
from ..ops.tracing import is_traced
from .pretrained import StrictlyPretrained


@MODELS.register_module()
class GlobalCovariancePooling(StrictlyPretrained, BaseModule):
    """Channel reduction, then global covariance pooling of every feature map.

    Each entry of `reduction` is a 1x1 convolution without bias, a normalisation layer and an
    activation. The vector that follows has :attr:`out_channels` entries, which is what the head's
    `in_channels` must be::

        neck=dict(type='GlobalCovariancePooling', in_channels=2048),
        head=dict(type='LinearClsHead', in_channels=32896, ...)

    Args:
        in_channels: channels of the feature maps.
        reduction: output channels of each reduction, in order. (256,) is the paper's layer,
            (128,) and (256, 128) those of its Tables 5 and 9; () pools the features as they are.
        iterations: Newton-Schulz iterations, at least 1. The paper and released weights: 5.
        norm: matrix normalisation, 'newton_schulz' (the paper's), 'eigh' (the exact square root)
            or 'none'; see :func:`gcp_mm.ops.global_covariance_pooling`.
        method: how the Newton-Schulz normalisation is computed; 'auto' is the fastest. This and
            `save` change nothing in the result, see
            :func:`gcp_mm.ops.global_covariance_pooling`.
        save: 'input' saves memory in training for some time: the backward computes again what
            'activations' keeps.
        check_finite: whether to look for NaN and infinity in every batch. None looks at every
            batch on a CPU, and at the first one elsewhere: on a GPU each look waits for the
            device. A run that diverges later shows it in its loss. Exported networks do not look.
        conv_cfg: config of the convolutions.
        norm_cfg: config of the normalisation layers.
        act_cfg: config of the activations. The paper's MobileNetV2 and ShuffleNetV2 have ReLU6.
        init_cfg: initialisation; the default is He's, fan-out, for the convolutions. A
            `Pretrained` one, with `prefix='neck.'`, has to fill all reductions: see
            :func:`gcp_mm.checkpoints.load_pretrained`.

    Raises:
        TypeError: if `in_channels`, `iterations` or an entry of `reduction` is not an integer, or
            `check_finite` neither a bool nor None.
        ValueError: if one of them is < 1, `norm`, `method` or `save` is unknown, or they do not
            go together.
    """

    def __init__(
        self,
        in_channels: int,
        reduction: Sequence[int] = (256,),
        iterations: int = 5,
        norm: str = 'newton_schulz',
        method: str = 'auto',
        save: str = 'auto',
        check_finite: bool | None = None,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = dict(type='BN'),
        act_cfg: dict | None = dict(type='ReLU'),
        init_cfg: dict | Sequence[dict] | None = (
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', val=1, layer='_BatchNorm'),
        ),
    ):
        super().__init__(init_cfg)
        if isinstance(reduction, (int, str)) or not isinstance(reduction, Sequence):
            raise TypeError(
                f'reduction: expected a sequence of channel numbers such as (256,), '
                f'got {reduction!r}'
            )
        _check_channels('in_channels', in_channels)
        for channels in reduction:
            _check_channels('reduction', channels)
        check_options(iterations, norm, method, save)
        if check_finite not in (None, True, False):
            raise TypeError(f'check_finite: expected True, False or None, got {check_finite!r}')

        self.in_channels = in_channels
        self.iterations = iterations
        self.norm = norm
        self.method = method
        self.save = save
        self.check_finite = check_finite
        self._looked = False  # at a first batch
        widths = (in_channels, *reduction)
        self.pooled_channels = widths[-1]
        # PyTorch's Sequential: mmengine's would have each ConvModule initialise itself once more,
        # after `init_cfg`.
        self.reduction = nn.Sequential(
            *(
                ConvModule(
                    c_in,
                    c_out,
                    kernel_size=1,
                    bias=False,
                    conv_cfg=conv_cfg,
                    norm_cfg=norm_cfg,
                    act_cfg=act_cfg,
                )
                for c_in, c_out in pairwise(widths)
            )
        )

    @property
    def out_channels(self) -> int:
        """Length of the output vector, D(D+1)/2: the `in_channels` of the head."""
        return self.pooled_channels * (self.pooled_channels + 1) // 2

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        """Pool one feature map, or each of a tuple of them.

        Args:
            inputs: (B, in_channels, H, W), or a tuple of such.

        Returns:
            (B, out_channels), or a tuple of such, in the dtype of the neck's weights (without
            any, of the features): float32 under autocast, half precision in a network that was
            converted to it.

        Raises:
            TypeError: if `inputs` is neither a tensor nor a tuple.
            ValueError: for features of another shape, or features that are not finite.
        """
        if isinstance(inputs, tuple):
            return tuple(self._pool(x) for x in inputs)
        if isinstance(inputs, Tensor):
            return self._pool(inputs)
        raise TypeError(
            f'inputs: expected a tensor or a tuple of tensors, got {type(inputs).__name__}'
        )

    def _pool(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f'inputs: expected (B, {self.in_channels}, H, W) features, got {tuple(x.shape)}; '
                "set the neck's in_channels to the channels of the backbone's output and the "
                "backbone's out_indices to the stages to pool"
            )
        if not is_traced(x) and self._is_to_look(x) and not torch.isfinite(x).all():
            raise ValueError(
                'inputs: the features hold NaN or infinity, so their covariance has no square '
                'root; lower the learning rate, clip the gradients or check the input images'
            )
        dtype = self.reduction[0].conv.weight.dtype if self.reduction else x.dtype
        pooled = global_covariance_pooling(
            self.reduction(x), self.iterations, self.norm, self.method, self.save
        )
        return pooled.to(dtype)

    def _is_to_look(self, x: Tensor) -> bool:
        looked, self._looked = self._looked, True
        if self.check_finite is None:
            return x.device.type == 'cpu' or not looked
        return self.check_finite


def _check_channels(name: str, channels: int) -> None:
    if isinstance(channels, bool) or not isinstance(channels, int):
        raise TypeError(f'{name}: expected whole numbers of channels, got {channels!r}')
    if channels < 1:
        raise ValueError(f'{name}: expected at least 1 channel, got {channels}')
