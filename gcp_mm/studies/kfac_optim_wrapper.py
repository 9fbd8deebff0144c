"""Training with K-FAC: natural gradients for a stock optimizer."""

import contextlib

import torch
from mmengine.dist import all_reduce_params
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from ..ops.arguments import check_integer
from ..runtime.network import unwrap
from .kfac import capture_factors, inverse_factors, kfac_layers, precondition


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
        TypeError: if `interval` is not an integer.
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
        if not damping > 0:
            raise ValueError(f'damping: expected a positive number, got {damping!r}')
        if not 0 <= decay < 1:
            raise ValueError(f'decay: expected a number in [0, 1), got {decay!r}')
        if not kl_clip > 0:
            raise ValueError(f'kl_clip: expected a positive number, got {kl_clip!r}')
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
