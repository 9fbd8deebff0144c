"""Parameters and multiply-adds of a network, as Table 9 of the paper counts them.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241.
"""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from mmengine.analysis import FlopAnalyzer, parameter_count
from mmengine.analysis.jit_handles import get_shape
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from ..hub import input_channels
from ..models import GlobalCovariancePooling

# Operators whose multiply-adds count, and the kind they are reported as.
PRODUCTS = {
    'conv': 'convolutions',
    'linear': 'linear layers',
    'addmm': 'linear layers',
    **dict.fromkeys(
        ('bmm', 'einsum', 'matmul', 'mm', 'scaled_dot_product_attention'), 'matrix products'
    ),
}
KINDS = (*dict.fromkeys(PRODUCTS.values()), 'covariance', 'square root')


@dataclass
class Complexity:
    """Size and cost of a network for one image.

    Attributes:
        image: (C, H, W).
        parameters: number of parameters.
        multiply_adds: multiply-adds by what they are spent on, zero ones left out.
        uncounted: names of the operators that took part and were not counted.
    """

    image: tuple[int, int, int]
    parameters: int
    multiply_adds: dict[str, int]
    uncounted: list[str]

    @property
    def total(self) -> int:
        """Multiply-adds altogether."""
        return sum(self.multiply_adds.values())


def pooling_multiply_adds(
    channels: int, positions: int, iterations: int = 5, norm: str = 'newton_schulz'
) -> dict[str, int]:
    """Multiply-adds of global covariance pooling by its textbook definition.

    The covariance is the product of a D x N and an N x D matrix. The first Newton-Schulz iteration
    takes one product of D x D matrices, since Z_0 = I; each that follows takes three, and the last
    leaves out that of Z: 12 for the paper's 5 iterations. How this package evaluates the same
    function (with fewer products, or in the N x N space) makes no difference here.

    Args:
        channels: D.
        positions: N.
        iterations: Newton-Schulz iterations, at least 1.
        norm: as in :func:`gcp_mm.ops.global_covariance_pooling`. Of 'eigh' the product
            U Lambda^(1/2) U^T is counted, and not the eigendecomposition.

    Returns:
        Multiply-adds of 'covariance' and 'square root'.
    """
    products = {'newton_schulz': max(3 * iterations - 3, 1), 'eigh': 1, 'none': 0}[norm]
    return {'covariance': channels**2 * positions, 'square root': products * channels**3}


def count_complexity(model: nn.Module, images: Tensor) -> Complexity:
    """Count the parameters of a network and the multiply-adds of its forward pass in eval mode.

    Convolutions, linear layers, attention and other matrix products are counted as they are
    evaluated, global covariance pooling by :func:`pooling_multiply_adds`. Biases, normalization
    layers, activations and average pooling are not.

    Args:
        model: takes `images` alone; is left in eval mode.
        images: (1, C, H, W), on the device of the model.

    Returns:
        The counts.
    """
    spent = Counter()
    poolings = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, GlobalCovariancePooling)
    }

    def add_pooling(neck, _module, _inputs, features):
        _, channels, height, width = map(int, features.shape)  # tensors while traced
        spent.update(pooling_multiply_adds(channels, height * width, neck.iterations, neck.norm))

    analyzer = FlopAnalyzer(model.eval(), images).tracer_warnings('none')
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analyzer.set_op_handle('aten::scaled_dot_product_attention', _count_attention)

    def outside_poolings(count):
        counter = count('')
        for name in poolings:
            counter = counter - count(name) + count(f'{name}.reduction')
        return counter

    with torch.no_grad(), ExitStack() as hooks:
        for neck in poolings.values():
            hook = neck.reduction.register_forward_hook(partial(add_pooling, neck))
            hooks.enter_context(hook)
        operators = outside_poolings(analyzer.by_operator)
    for name, number in operators.items():
        if name in PRODUCTS:
            spent[PRODUCTS[name]] += number
    others = {name.split('::')[-1] for name in outside_poolings(analyzer.unsupported_ops)}
    return Complexity(
        image=tuple(images.shape[1:]),
        parameters=parameter_count(model)[''],
        multiply_adds={kind: spent[kind] for kind in KINDS if spent[kind]},
        uncounted=sorted(others | operators.keys() - PRODUCTS.keys()),
    )


def config_complexity(cfg: Config, shape: tuple[int, int]) -> Complexity:
    """Build the network of a config and count its cost for one image.

    A detector is given the proposals that it makes itself, untrained, of random noise.

    Args:
        cfg: config of a classifier of MMPretrain or of a detector of MMDetection.
        shape: height and width of the image, in pixels.

    Returns:
        The counts.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model = MODELS.build(cfg.model)
        if cfg.get('default_scope') == 'mmdet':
            from mmdet.structures import DetDataSample

            sizes = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
            sample = DetDataSample(metainfo=dict.fromkeys(sizes, shape) | dict(scale_factor=(1, 1)))
            model.forward = partial(model.forward, data_samples=[sample])
        return count_complexity(model, torch.randn(1, input_channels(model), *shape))


def _count_attention(inputs, outputs):
    """Multiply-adds of softmax(Q K^T) V: (..., L, E), (..., S, E), (..., S, V)."""
    query, key, value = (get_shape(tensor) for tensor in inputs[:3])
    return prod(query[:-1]) * key[-2] * (key[-1] + value[-1])
