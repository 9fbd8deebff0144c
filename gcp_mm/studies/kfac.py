r"""K-FAC: Kronecker-factored approximation of the Fisher matrix, and training with it.

Martens & Grosse, Optimizing Neural Networks with Kronecker-factored Approximate Curvature, ICML
2015, https://arxiv.org/abs/1503.05671; Grosse & Martens, A Kronecker-factored Approximate Fisher
Matrix for Convolution Layers, ICML 2016, https://arxiv.org/abs/1602.01407. It is the second-order
method that Table 1 of https://arxiv.org/abs/2003.11241 sets beside GCP.

The Fisher matrix of a linear or convolution layer with inputs a, a 1 at their end where it has a
bias, and outputs s is approximated by :math:`A \otimes G`, so that its inverse acts on a weight
gradient as :math:`V = G^{-1} (\partial L/\partial W) A^{-1}`:

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
from mmengine.dist import all_reduce_params
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ..ops.arguments import check_integer, check_number
from ..runtime.network import unwrap

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


@OPTIM_WRAPPERS.register_module()
class KFACOptimWrapper(OptimWrapper):
    """Precondition the gradients of linear and convolution layers with K-FAC.

    Other parameters (of BN and grouped convolutions) keep their gradients. The optimizer applies
    momentum and weight decay, and schedules change its learning rate::

        optim_wrapper=dict(type='KFACOptimWrapper', optimizer=dict(type='SGD', lr=0.1, ...))

    The natural gradients V are then scaled by nu = min(1, sqrt(kl_clip / sum lr^2 V . dL/dW)), so
    that a step moves the prediction by no more than about `kl_clip` in KL divergence (Ba, Grosse &
    Martens, Distributed Second-Order Optimization using Kronecker-Factored Approximations, ICLR
    2017). `clip_grad`, if set, is applied afterwards.

    In a distributed run the factors are averaged over the processes, and each process inverts all
    of them. The checkpoint has their running averages in addition to the optimizer's state, so a
    resumed run continues exactly. If a loaded state has none, the next batch starts new averages.

    The factors are dense, with n^2 numbers for n inputs in a patch: 0.4 GB for ResNet-18 and 0.6 GB
    for ResNet-50, and the same for their inverses. They are too large for the classifier of a
    network with GCP. Mixed precision and gradient accumulation are not supported: they scale the
    loss.

    Args:
        optimizer: the optimizer.
        damping: lambda > 0, added to the Fisher matrix, in the units of its eigenvalues.
        decay: weight of earlier batches in the factors' running averages, in [0, 1).
        interval: iterations between updates of the factors and inverses.
        kl_clip: bound of the KL divergence of a step.
        clip_grad: as in :class:`mmengine.optim.OptimWrapper`.

    Raises:
        TypeError: if `interval` is not an integer, or `damping` or `kl_clip` not a number.
        ValueError: if an argument is out of range; in a step, if a damped factor is singular.
    """

    def __init__(
        self,
        optimizer,
        damping: float = 0.01,
        decay: float = 0.95,
        interval: int = 10,
        kl_clip: float = 1e-3,
        clip_grad: dict | None = None,
    ):
        super().__init__(optimizer, clip_grad=clip_grad)
        check_integer('interval', interval)
        check_number('damping', damping)
        check_number('kl_clip', kl_clip)
        if not 0 <= decay < 1:
            raise ValueError(f'decay: expected a number in [0, 1), got {decay!r}')
        self.damping = damping
        self.decay = decay
        self.interval = interval
        self.kl_clip = kl_clip
        self._factors = {}
        self._inverses = {}
        self._layers = {}
        self._captured = {}

    @contextlib.contextmanager
    def optim_context(self, model):
        """Capture the factors in an iteration that updates them."""
        self._layers = kfac_layers(unwrap(model))
        due = self._inner_count % self.interval == 0 or not self._factors
        with super().optim_context(model), capture_factors(self._layers if due else {}) as captured:
            self._captured = captured
            yield

    def step(self, **kwargs):
        """Update the factors if due, precondition the gradients, and step."""
        if self._captured:
            self._update()
        self._precondition()
        super().step(**kwargs)

    def state_dict(self) -> dict:
        """State of the optimizer, with the factors' running averages as 'kfac'."""
        return {**super().state_dict(), 'kfac': dict(self._factors)}

    def load_state_dict(self, state_dict: dict) -> None:
        """Load a state of this class, or of a plain optimizer."""
        state_dict = dict(state_dict)
        factors = state_dict.pop('kfac', {})
        super().load_state_dict(state_dict)
        device = self.param_groups[0]['params'][0].device
        self._factors = {
            name: tuple(factor.to(device) for factor in pair) for name, pair in factors.items()
        }
        self._inverses = {}
        self._invert(self._factors)

    def _update(self):
        # Every process in the same order: hooks ran in the order of its own backward pass.
        captured = {name: self._captured[name] for name in self._layers if name in self._captured}
        self._captured = {}
        all_reduce_params(
            (factor for pair in captured.values() for factor in pair), coalesce=False, op='mean'
        )
        for name, new in captured.items():
            old = self._factors.get(name, new)  # the first factors of a layer are taken unaveraged
            self._factors[name] = tuple(
                torch.lerp(now, past, self.decay) for past, now in zip(old, new, strict=True)
            )
        self._invert(captured)

    def _invert(self, names):
        for name in names:
            try:
                self._inverses[name] = inverse_factors(*self._factors[name], self.damping)
            except torch.linalg.LinAlgError as error:
                raise ValueError(
                    f'{name}: a Kronecker factor has no inverse with damping={self.damping}; '
                    'raise the damping, or lower the learning rate if the loss has diverged'
                ) from error

    def _precondition(self):
        lr = {id(p): group['lr'] for group in self.param_groups for p in group['params']}
        changed, divergence = [], 0
        for name, layer in self._layers.items():
            if layer.weight.grad is not None and name in self._inverses:
                product = precondition(layer, self._inverses[name])
                changed += [p.grad for p in layer.parameters()]
                divergence += lr[id(layer.weight)] ** 2 * product
        if divergence > self.kl_clip:
            for grad in changed:
                grad.mul_((self.kl_clip / divergence) ** 0.5)
