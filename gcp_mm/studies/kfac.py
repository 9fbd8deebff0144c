r"""K-FAC: Kronecker-factored approximation of the Fisher matrix of linear and convolution layers.

Martens & Grosse, Optimizing Neural Networks with Kronecker-factored Approximate Curvature, ICML
2015, https://arxiv.org/abs/1503.05671; Grosse & Martens, A Kronecker-factored Approximate Fisher
Matrix for Convolution Layers, ICML 2016, https://arxiv.org/abs/1602.01407. It is the second-order
method that Table 1 of https://arxiv.org/abs/2003.11241 sets beside GCP.

The Fisher matrix of a layer with inputs a, a 1 at their end where it has a bias, and outputs s is
approximated by :math:`A \otimes G`, so that its inverse acts on a weight gradient as
:math:`V = G^{-1} (\partial L/\partial W) A^{-1}`:

.. math::
    A = E[{\textstyle\sum_t a_t a_t^T}], \quad
    G = E[\tfrac{1}{T} {\textstyle\sum_t (\partial L/\partial s_t) (\partial L/\partial s_t)^T}]

over images, with a sum over the T positions of a convolution, where a is a patch of the input. The
gradients are those of the training loss: it is the empirical Fisher matrix, in which the labels are
not drawn from the network's prediction. That needs no second backward pass, and is what Table 1
writes. Lambda being the damping, :math:`A + \pi\sqrt\lambda I` and :math:`G +
\tfrac{\sqrt\lambda}{\pi} I` are inverted, with :math:`\pi^2` the ratio of the mean eigenvalues of A
and G.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Factors = dict[str, tuple[Tensor, Tensor]]


def kfac_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that K-FAC covers, by name.

    They are every `nn.Linear` and `nn.Conv2d` all of whose parameters are trained, except grouped
    convolutions and those whose padding is not a number of zeros.
    """

    def covered(layer):
        if isinstance(layer, nn.Conv2d):
            zeros = layer.padding_mode == 'zeros' and not isinstance(layer.padding, str)
            return layer.groups == 1 and zeros
        return isinstance(layer, nn.Linear)

    return {
        name: layer
        for name, layer in model.named_modules()
        if covered(layer) and all(p.requires_grad for p in layer.parameters())
    }


@contextlib.contextmanager
def capture_factors(layers: dict[str, nn.Module]) -> Iterator[Factors]:
    """Collect the factors of one batch: of the forward pass within, and of its backward.

    Args:
        layers: layers by name, see :func:`kfac_layers`.

    Yields:
        A dict that the backward pass, within or after the context, fills with the A and G of each
        layer whose output the loss depends on. The loss has to be the mean over the images, and
        each layer has to treat them one by one, with the batch as its first dimension. A is
        (n, n), n the inputs of the layer (of a patch) and 1 for a bias, G (m, m), m its outputs;
        both in the dtype of the layer's weight.

    Raises:
        ValueError: in the backward pass, if gradients reach a layer twice.
    """
    factors = {}

    def watch(name, layer):
        def collect(inputs, grad):
            if name in factors:
                raise ValueError(
                    f'{name}: gradients reach the layer more than once, because it runs twice in '
                    'a forward pass, which K-FAC does not cover; leave it out of layers'
                )
            factors[name] = layer_factors(layer, inputs, grad)

        def on_forward(layer, inputs, output):
            # Activation checkpointing runs a block first without recording gradients.
            if output.requires_grad:
                inputs = inputs[0].detach()
                output.register_hook(lambda grad: collect(inputs, grad))

        return layer.register_forward_hook(on_forward)

    handles = [watch(name, layer) for name, layer in layers.items()]
    try:
        yield factors
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def layer_factors(layer: nn.Module, inputs: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """A and G of a layer for one batch.

    Args:
        layer: `nn.Linear` or `nn.Conv2d`.
        inputs: of the layer, (B, ..., n) or (B, C, H, W).
        grad: gradient of the mean loss at its outputs, (B, ..., m) or (B, m, H, W).

    Returns:
        A, (n, n) for n = C kh kw inputs in a patch, (n + 1, n + 1) with a bias; and G, (m, m). In
        the dtype of the weight.
    """
    batch = inputs.shape[0]
    inputs, grad = inputs.to(layer.weight.dtype), grad.to(layer.weight.dtype)
    if isinstance(layer, nn.Conv2d):
        conv = layer.kernel_size, layer.dilation, layer.padding, layer.stride
        inputs, grad = F.unfold(inputs, *conv).mT, grad.flatten(2).mT  # (B, T, n), (B, T, m)
    a, g = inputs.flatten(0, -2), grad.flatten(0, -2)
    if layer.bias is not None:
        a = F.pad(a, (0, 1), value=1)
    g = g * batch  # gradients of each image's own loss
    return a.mT @ a / batch, g.mT @ g / len(g)


def inverse_factors(a: Tensor, g: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Inverses of A + pi sqrt(lambda) I and G + sqrt(lambda) / pi I.

    Args:
        a: A, (n, n).
        g: G, (m, m).
        damping: lambda > 0. Martens & Grosse, section 6.3, divide it by the mean eigenvalues; if a
            factor is zero, pi is 1.

    Raises:
        torch.linalg.LinAlgError: if one is not positive definite: the damping is lost in rounding,
            or a factor holds NaN.
    """
    means = a.diagonal().mean(), g.diagonal().mean()
    pi = (means[0] / means[1]).sqrt() if min(means) > 0 else means[0].new_ones(())

    def inverse(factor, share):
        factor = factor.clone()
        factor.diagonal().add_(share)
        return torch.cholesky_inverse(torch.linalg.cholesky(factor))

    return inverse(a, pi * damping**0.5), inverse(g, damping**0.5 / pi)


def weight_matrix(weight: Tensor, bias: Tensor | None) -> Tensor:
    """A layer's weights, or their gradients, as the matrix that multiplies a.

    Args:
        weight: (m, n) or (m, C, kh, kw).
        bias: (m,), None where the layer has none.

    Returns:
        (m, n) for n = C kh kw, or (m, n + 1) with a bias.
    """
    matrix = weight.flatten(1)
    return matrix if bias is None else torch.cat((matrix, bias[:, None]), dim=1)


def precondition(layer: nn.Module, inverses: tuple[Tensor, Tensor]) -> Tensor:
    """Replace a layer's gradient, in `.grad`, by V = G^-1 (dL/dW) A^-1.

    Args:
        layer: the layer.
        inverses: what :func:`inverse_factors` gives.

    Returns:
        The inner product of V and the gradient, a scalar.
    """
    a_inverse, g_inverse = inverses
    grad = weight_matrix(layer.weight.grad, None if layer.bias is None else layer.bias.grad)
    natural = g_inverse @ grad @ a_inverse
    product = (natural * grad).sum()  # before grad, which may be a view, is written over
    width = layer.weight[0].numel()
    layer.weight.grad.copy_(natural[:, :width].view_as(layer.weight))
    if layer.bias is not None:
        layer.bias.grad.copy_(natural[:, width])
    return product
