"""Global covariance pooling as a layer: 1x1 channel reduction, then the pooling.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, sections 3.1 and 4.1.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .arguments import check_integer
from .dropcov import DropCov, in_several_processes
from .pooling import check_options, global_covariance_pooling
from .tokens import split_tokens
from .tracing import is_traced

# What to do about features that are no map of so many channels, by their number of dimensions
REMEDIES = {
    2: "the backbone gives vectors: have it give its feature map, with out_type='featmap' for a "
    'vision transformer, gap_before_final_norm=False for a ConvNeXt of MMPretrain',
    3: 'the backbone gives tokens: set class_tokens to the number of leading tokens to skip (1 for '
    "a class token, 2 with DeiT's distillation token, 0 for none), or have it give "
    "its feature map, in MMPretrain with out_type='featmap'",
    4: 'set in_channels to the channels of the feature map (in a config, out_indices of the '
    'backbone names the stages to pool)',
}
ONE_POSITION = (
    'the feature maps have one position: their covariance is zero, and no gradient reaches the '
    'layers before the pooling; take larger images or a backbone with less down-sampling, such as '
    "GCPResNet with conv5='none'"
)


def conv_bn_relu(in_channels: int, out_channels: int) -> nn.Module:
    """A reduction: 1x1 convolution without bias (He's initialization, fan-out), BN and ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
    return nn.Sequential(
        OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), activate=nn.ReLU(inplace=True))
    )


class GlobalCovariancePool2d(nn.Module):
    """Channel reduction, then global covariance pooling, in place of global average pooling.

    Args:
        in_channels: channels of the feature maps.
        reduction: output channels of each reduction, in order. (256,) is the paper's layer,
            (128,) and (256, 128) those of its Tables 5 and 9; () pools the features as they are.
        iterations: Newton-Schulz iterations, 1 to 12. The paper and released weights: 5.
        norm: matrix normalization, 'newton_schulz' (the paper's), 'eigh' (the exact square root),
            'power', 'log', 'cholesky', 'signed_sqrt_l2' or 'none'; see
            :func:`gcp_mm.ops.global_covariance_pooling`.
        method: how the Newton-Schulz normalization is computed; 'auto' is the fastest. It
            does not change the result, see :func:`gcp_mm.ops.global_covariance_pooling`.
        block: makes the module of a reduction from its input and output channels.
        exponent: of `norm='power'`, above 0.
        dropcov: whether to drop channels in training, see :class:`gcp_mm.ops.DropCov`. The method
            goes with `norm='none'`.
        class_tokens: None for feature maps. For tokens, the number of leading tokens to skip: 1
            for a class token, 2 with a distillation token, 0 for none.

    Raises:
        TypeError: if `in_channels`, `iterations`, `class_tokens` or an entry of `reduction` is not
            an integer, `exponent` not a number, or `dropcov` not a bool.
        ValueError: if one of them is out of range, `norm` or `method` is unknown, or they do
            not go together.
    """

    # A network trained without DropCov is a start for one with it.
    optional_weights = ('dropcov.',)

    def __init__(
        self,
        in_channels: int,
        reduction: Sequence[int] = (256,),
        iterations: int = 5,
        norm: str = 'newton_schulz',
        method: str = 'auto',
        block: Callable[[int, int], nn.Module] = conv_bn_relu,
        exponent: float = 0.5,
        dropcov: bool = False,
        class_tokens: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(reduction, (int, str)) or not isinstance(reduction, Sequence):
            raise TypeError(
                f'reduction: expected a sequence of channel numbers such as (256,), '
                f'got {reduction!r}'
            )
        check_integer('in_channels', in_channels)
        for channels in reduction:
            check_integer('reduction', channels)
        check_options(iterations, norm, method, exponent)
        if class_tokens is not None:
            check_integer('class_tokens', class_tokens, low=0)

        if not isinstance(dropcov, bool):
            raise TypeError(f'dropcov: expected True or False, got {dropcov!r}')
        if dropcov and (in_channels, *reduction)[-1] < 2:
            raise ValueError('reduction: expected at least 2 channels with dropcov=True, got 1')

        self.in_channels = in_channels
        self.iterations = iterations
        self.norm = norm
        self.method = method
        self.exponent = exponent
        self.class_tokens = class_tokens
        self._looked = False  # at a first batch
        widths = (in_channels, *reduction)
        self.pooled_channels = widths[-1]
        # PyTorch's Sequential: mmengine's would have each block of the neck initialize itself once
        # more, after `init_cfg`.
        self.reduction = nn.Sequential(*(block(*pair) for pair in pairwise(widths)))
        self.dropcov = DropCov() if dropcov else None

    @property
    def out_channels(self) -> int:
        """Length of the output vector, D(D+1)/2, which are the inputs of the classifier."""
        return self.pooled_channels * (self.pooled_channels + 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Pool feature maps, or tokens.

        Args:
            x: (B, in_channels, H, W); with `class_tokens` set, (B, N, in_channels).

        Returns:
            (B, out_channels), in the dtype of the weights, or of the features if the layer has
            none: float32 under autocast, half precision in a network that was converted to it.

        Raises:
            ValueError: for features of another shape, or features that are not finite. Those of
                every batch are checked on a CPU, and those of the first batch elsewhere.
        """
        if self.class_tokens or (self.class_tokens == 0 and x.dim() != 4):
            _, positions = split_tokens(x, self.in_channels, self.class_tokens)
            x = positions.transpose(1, 2)[..., None]  # (B, in_channels, N - class_tokens, 1)
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f'inputs: expected (B, {self.in_channels}, H, W) features, got {tuple(x.shape)}; '
                f'{REMEDIES.get(x.dim(), REMEDIES[4])}'
            )
        dtype = [*self.parameters(), x][0].dtype  # PyTorch 2.1 cannot compile `next`
        finite = is_traced(x) or not self._is_to_look(x) or bool(torch.isfinite(x).all())
        if finite or (self.dropcov is not None and self.training and in_several_processes()):
            x = self.reduction(x)
            x = x if self.dropcov is None else self.dropcov(x)
        if not finite:
            raise ValueError(
                'inputs: the features hold NaN or infinity, so they have no covariance; lower the '
                'learning rate, clip the gradients or check the input images'
            )
        if self.training and x.shape[2:].numel() == 1 and not is_traced(x):
            warnings.warn(ONE_POSITION, stacklevel=2)
        pooled = global_covariance_pooling(
            x, self.iterations, self.norm, self.method, self.exponent
        )
        return pooled.to(dtype)

    def extra_repr(self) -> str:
        """Options that the children do not show."""
        options = f'{self.in_channels}, iterations={self.iterations}, norm={self.norm!r}'
        if self.norm == 'power':
            options += f', exponent={self.exponent}'
        if self.class_tokens is not None:
            options += f', class_tokens={self.class_tokens}'
        return options

    def _is_to_look(self, x: Tensor) -> bool:
        """Every batch on a CPU; the first one elsewhere, where each look waits for the device."""
        looked, self._looked = self._looked, True
        return x.device.type == 'cpu' or not looked
