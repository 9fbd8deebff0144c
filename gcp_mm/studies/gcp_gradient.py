r"""Gradient of global covariance pooling as the paper writes it: eq. (6), and eq. (7), trimmed.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, section 3.3 and appendix II. With
:math:`\Sigma = X^T J X = U \Lambda U^T` and :math:`Z = \Sigma^{1/2}`,

.. math::
    \partial L/\partial X = 2 J X [U (K^T \circ (U^T 2 (\partial L/\partial Z)_{sym} U
    \Lambda^{1/2}) + (\tfrac{1}{2} \Lambda^{-1/2} U^T \partial L/\partial Z\, U)_{diag}) U^T]_{sym}

    \partial L/\partial X \approx 2 J X (2 K^T \circ \Lambda^{1/2} + \tfrac{1}{2} \Lambda^{-1/2})
    \partial L/\partial Z

What the paper leaves open is settled here as follows.

- K is called 'a mask matrix associated with eigenvalues'. With :math:`K_{ij} = 1/(\lambda_i -
  \lambda_j)` off its diagonal and 0 on it, eq. (6) is the derivative, signs and factors included:
  the tests hold it to autograd and to finite differences.
- Eq. (6) wants distinct, positive eigenvalues, which real features seldom have: there are rarely
  more positions than channels, so that :math:`\Sigma` is singular. Within the null space K and
  :math:`\Lambda^{-1/2}` are 0 here, as in :func:`gcp_mm.ops.matrix_sqrt_eigh`; between it and the
  rest eq. (6) holds as it stands, since JX vanishes on the null space.
- In eq. (7) :math:`K^T \circ \Lambda^{1/2}`, by the letter, is the Hadamard product of a matrix
  with a zero diagonal and a diagonal one: it is zero. As the matrix product that eq. (6) suggests,
  :math:`K^T \Lambda^{1/2}`, it makes the approximation worse, see docs/guides/second_order.md.
- Eq. (7) has lost U, so that it applies the n-th eigenvalue to the n-th channel. That is right
  where the channels are uncorrelated and sorted. In the basis of the eigenvectors,
  :math:`U(\ldots)U^T`, the diagonal term does not depend on how channels and eigenvalues are
  numbered. The term with K has no meaning there: it would change with the signs of the
  eigenvectors, which are free.

:func:`trimmed_preconditioner` computes the diagonal term of eq. (7) both ways.
The layer computes its gradient differently, see :mod:`gcp_mm.ops.newton_schulz_pooling`.
"""

import torch
from torch import Tensor

from ..ops.covariance import center, flatten_positions
from ..ops.precision import full_precision

FORMS = ('printed', 'eigenbasis')


@full_precision
def gcp_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Exact gradient by eq. (6), term by term.

    Args:
        x: features, (B, D, H, W) or (B, D, N), any floating-point dtype.
        grad: dL/dZ, (B, D, D), for Z the full matrix square root. If the loss is a function of the
            triangle vector v, it is ``triu_vector_adjoint(dL/dv) / 2``.

    Returns:
        dL/dX, the shape of `x`, float32 or, for float64 input, float64; computed in float64. For
        nearly equal eigenvalues the formula subtracts nearly equal numbers: its relative error is
        about 1e-16 divided by the eigenvalues' relative distance.

    Raises:
        TypeError: if `x` is not a floating-point tensor.
        ValueError: for other shapes, or if a positive eigenvalue is repeated: K does not exist
            there. Use :func:`gcp_mm.ops.matrix_sqrt_eigh` instead.
    """
    jx, lam, root, inverse_root, u = _decompose(x)
    if grad.shape != lam.shape + lam.shape[1:]:
        raise ValueError(
            f'grad: expected dL/dZ of shape (B, D, D) = {(*lam.shape, lam.shape[1])}, '
            f'got {tuple(grad.shape)}'
        )
    grad = grad.double()
    grad_sym = (grad + grad.mT) / 2
    inner = _mask(lam).mT * (u.mT @ (2 * grad_sym) @ u * root[:, None, :])
    diagonal = inverse_root / 2 * (u.mT @ grad @ u).diagonal(dim1=1, dim2=2)
    grad_cov = u @ (inner + torch.diag_embed(diagonal)) @ u.mT
    gradient = jx @ (grad_cov + grad_cov.mT)  # 2 J X [...]_sym
    return gradient.mT.reshape(x.shape).to(x.dtype)


@full_precision
def trimmed_preconditioner(x: Tensor, form: str = 'printed') -> Tensor:
    r"""F^-1 of Table 1, without the learning rate; its product with dL/dZ is eq. (7), (B, N, D).

    Args:
        x: features, (B, D, H, W) or (B, D, N).
        form: how to read :math:`2JX(2K^T \circ \Lambda^{1/2} + \frac{1}{2} \Lambda^{-1/2})`:

            - 'printed': by the letter, :math:`JX \Lambda^{-1/2}`, the eigenvalues in descending
              order;
            - 'eigenbasis': the first in the basis of the eigenvectors, :math:`JX \Sigma^{-1/2}`.
              These are the whitened features, whose nonzero singular values all are
              :math:`1/\sqrt N`.

    Returns:
        (B, N, D), float64.

    Raises:
        TypeError: if `x` is not a floating-point tensor.
        ValueError: for another shape or `form`.
    """
    if form not in FORMS:
        raise ValueError(f'form: expected one of {FORMS}, got {form!r}')
    jx, _, _, inverse_root, u = _decompose(x)
    if form == 'printed':
        return jx * inverse_root[:, None, :]
    return jx @ (u * inverse_root[:, None, :]) @ u.mT


def _decompose(x):
    """J X, (B, N, D); Lambda, descending, 0 within rounding, its root and inverse root; U."""
    centered = center(flatten_positions(x).double()).mT
    # The singular values of the features: their squares would lose half of the digits.
    _, s, vh = torch.linalg.svd(centered / centered.shape[1] ** 0.5, full_matrices=True)
    rounding = torch.finfo(s.dtype).eps * max(centered.shape[1:]) * s[:, :1]
    root = s.new_zeros(vh.shape[:2])
    root[:, : s.shape[1]] = torch.where(s > rounding, s, 0)
    inverse_root = torch.where(root > 0, 1 / root, 0)
    return centered / centered.shape[1], root.square(), root, inverse_root, vh.mT


def _mask(lam):
    """K, (B, D, D)."""
    gap = lam[:, :, None] - lam[:, None, :]
    wanted = (lam[:, :, None] > 0) | (lam[:, None, :] > 0)
    wanted &= ~torch.eye(lam.shape[1], dtype=torch.bool, device=lam.device)
    if (wanted & (gap == 0)).any():
        raise ValueError(
            'x: its covariance has a repeated positive eigenvalue, where K divides by zero; '
            'gcp_mm.ops.matrix_sqrt_eigh has the derivative there'
        )
    return torch.where(wanted, 1 / gap, 0)
