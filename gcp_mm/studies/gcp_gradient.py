r"""Gradient of global covariance pooling as the paper writes it: eq. (6), and eq. (7), trimmed.

Wang et al., What Deep CNNs Benefit from Global Covariance Pooling: An Optimization Perspective,
CVPR 2020, https://arxiv.org/abs/2003.11241, section 3.3 and appendix II. With
:math:`\Sigma = X^T J X = U \Lambda U^T` and :math:`Z = \Sigma^{1/2}`,

.. math::
    \partial L/\partial X = 2 J X [U (K^T \circ (U^T 2 (\partial L/\partial Z)_{sym} U
    \Lambda^{1/2}) + (\tfrac12 \Lambda^{-1/2} U^T \partial L/\partial Z\, U)_{diag}) U^T]_{sym}

    \partial L/\partial X \approx 2 J X (2 K^T \circ \Lambda^{1/2} + \tfrac12 \Lambda^{-1/2})
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
  with a zero diagonal and a diagonal one: it is zero. Where :math:`\Lambda^{1/2}` stands in eq. (6)
  it scales columns, which would make it the matrix product :math:`K^T \Lambda^{1/2}`.
- Eq. (7) has lost U, so that it applies the n-th eigenvalue to the n-th channel. That is right
  where the channels are uncorrelated and sorted. In the basis of the eigenvectors,
  :math:`U(\ldots)U^T`, the diagonal term does not depend on how channels and eigenvalues are
  numbered. The term with K has no meaning there: it would change with the signs of the
  eigenvectors, which are free.

:func:`trimmed_preconditioner` has these readings of eq. (7), by name.

All of this is for study: the layer itself computes its gradient otherwise, see
:mod:`gcp_mm.ops.newton_schulz_pooling`.
"""

import torch
from torch import Tensor

from ..ops.covariance import centre, flatten_positions

FORMS = ('printed', 'product', 'eigenbasis')


def gcp_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Exact gradient by eq. (6), term by term.

    Args:
        x: features, (B, D, H, W) or (B, D, N), any floating-point dtype.
        grad: dL/dZ, (B, D, D), for Z the full matrix square root. Where the loss is a function of
            the triangle vector v, it is ``triu_vector_adjoint(dL/dv) / 2``.

    Returns:
        dL/dX, the shape and dtype of `x`, computed in float64. Where eigenvalues are nearly equal
        the formula subtracts nearly equal numbers: its relative error is about 1e-16 divided by
        the eigenvalues' relative distance.

    Raises:
        TypeError: if `x` is not a floating-point tensor.
        ValueError: for other shapes, or if a positive eigenvalue is there twice, where K does not
            exist; :func:`gcp_mm.ops.matrix_sqrt_eigh` has the derivative there.
    """
    jx, lam, u = _decompose(x, grad)
    root, inverse_root = _roots(lam)
    k = _mask(lam)
    grad = grad.double()
    grad_sym = (grad + grad.mT) / 2
    inner = k.mT * (u.mT @ (2 * grad_sym) @ u * root[:, None, :])
    diagonal = inverse_root / 2 * (u.mT @ grad @ u).diagonal(dim1=1, dim2=2)
    grad_cov = u @ (inner + torch.diag_embed(diagonal)) @ u.mT
    return _like(x, jx @ (grad_cov + grad_cov.mT))  # 2 J X [...]_sym


def trimmed_gcp_gradient(x: Tensor, grad: Tensor, form: str = 'printed') -> Tensor:
    """Trimmed gradient by eq. (7): :func:`trimmed_preconditioner` times dL/dZ.

    Args:
        x: features, (B, D, H, W) or (B, D, N).
        grad: dL/dZ, (B, D, D), as in :func:`gcp_gradient`.
        form: see :func:`trimmed_preconditioner`.

    Returns:
        An approximation of dL/dX, the shape and dtype of `x`.

    Raises:
        TypeError, ValueError: as :func:`gcp_gradient` and :func:`trimmed_preconditioner` do.
    """
    _check_grad(x, grad)
    return _like(x, trimmed_preconditioner(x, form) @ grad.double())


def trimmed_preconditioner(x: Tensor, form: str = 'printed') -> Tensor:
    r"""F^-1 of Table 1, without the learning rate.

    Args:
        x: features, (B, D, H, W) or (B, D, N).
        form: how to read :math:`2JX(2K^T \circ \Lambda^{1/2} + \frac12 \Lambda^{-1/2})`:

            - 'printed': by the letter, :math:`JX \Lambda^{-1/2}`, the eigenvalues in descending
              order;
            - 'product': :math:`2JX(2K^T \Lambda^{1/2} + \frac12 \Lambda^{-1/2})`, in that order;
            - 'eigenbasis': the first in the basis of the eigenvectors, :math:`JX \Sigma^{-1/2}`.
              These are the whitened features, all of whose singular values that are not 0 are
              :math:`1/\sqrt N`.

    Returns:
        (B, N, D), float64.

    Raises:
        TypeError: if `x` is not a floating-point tensor.
        ValueError: for another shape or `form`, or, where K is needed, if a positive eigenvalue is
            there twice.
    """
    if form not in FORMS:
        raise ValueError(f'form: expected one of {FORMS}, got {form!r}')
    jx, lam, u = _decompose(x)
    root, inverse_root = _roots(lam)
    if form == 'eigenbasis':
        return jx @ (u * inverse_root[:, None, :]) @ u.mT
    middle = torch.diag_embed(inverse_root / 2)
    if form == 'product':
        middle = middle + 2 * _mask(lam).mT * root[:, None, :]
    return 2 * jx @ middle


def _decompose(x, grad=None):
    """J X, (B, N, D), the eigenvalues of Sigma, descending, 0 within rounding, and eigenvectors."""
    if grad is not None:
        _check_grad(x, grad)
    if not x.is_floating_point():
        raise TypeError(f'x: expected a floating-point tensor, got dtype {x.dtype}')
    centred = centre(flatten_positions(x).double()).mT
    # The singular values of the features: their squares would lose the small half of the digits.
    _, s, vh = torch.linalg.svd(centred / centred.shape[1] ** 0.5, full_matrices=True)
    rank = min(centred.shape[1:])
    rounding = torch.finfo(s.dtype).eps * max(centred.shape[1:]) * s[:, :1]
    lam = s.new_zeros(vh.shape[:2])
    lam[:, :rank] = torch.where(s > rounding, s, 0).square()
    return centred / centred.shape[1], lam, vh.mT


def _roots(lam):
    """Diagonals of Lambda^(1/2) and of its pseudo-inverse, (B, D)."""
    root = lam.sqrt()
    return root, torch.where(root > 0, 1 / root, 0)


def _mask(lam):
    """K, (B, D, D)."""
    gap = lam[:, :, None] - lam[:, None, :]
    wanted = (lam[:, :, None] > 0) | (lam[:, None, :] > 0)
    wanted &= ~torch.eye(lam.shape[1], dtype=torch.bool, device=lam.device)
    if (wanted & (gap == 0)).any():
        raise ValueError(
            'x: its covariance has a positive eigenvalue twice, where K divides by zero; '
            'gcp_mm.ops.matrix_sqrt_eigh has the derivative there'
        )
    return torch.where(wanted, 1 / gap, 0)


def _check_grad(x, grad):
    expected = (x.shape[0], x.shape[1], x.shape[1])
    if tuple(grad.shape) != expected:
        raise ValueError(
            f'grad: expected dL/dZ of shape (B, D, D) = {expected}, got {tuple(grad.shape)}'
        )


def _like(x, gradient):
    return gradient.mT.reshape(x.shape).to(x.dtype)
