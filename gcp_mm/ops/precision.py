"""The precision every operation of this package computes in: float32, or float64 where asked."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from .tracing import is_traced

Op = TypeVar('Op', bound=Callable[..., Tensor])


def full_precision(op: Op) -> Op:
    """Decorate `op` to run with :func:`full_products` on a first argument of at least float32.

    Second-order statistics square the range of their input, and the Newton-Schulz iteration
    subtracts nearly equal matrices: half precision loses the result whatever the network around
    it runs in. float64 stays float64; float16 and bfloat16 become float32, and autograd gives
    their gradients back in their own dtype.

    Raises:
        TypeError: if the first argument is not a real floating-point tensor.
    """

    @functools.wraps(op)
    def wrapper(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = f'dtype {x.dtype}' if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(
                f'{op.__name__}: expected a floating-point tensor as first argument, got {got}; '
                'convert it with .float()'
            )
        with full_products(x):
            return op(x if x.dtype == torch.float64 else x.float(), *args, **kwargs)

    return cast(Op, wrapper)


def full_products(x: Tensor) -> contextlib.AbstractContextManager:
    """Context in which products on the device of `x` have the precision of their arguments.

    Autocast casts nothing there and, unless a compiler or an exporter records, float32 is not
    rounded to TF32 or bfloat16. The backward of a Function needs its own.
    """
    # Tensors on 'meta' (shape inference, operation counting) have no autocast to turn off.
    if x.is_meta:
        return contextlib.nullcontext()
    autocast_off = torch.autocast(x.device.type, enabled=False)
    return autocast_off if is_traced(x) else _in_both(autocast_off)


@contextlib.contextmanager
def _in_both(autocast_off: contextlib.AbstractContextManager) -> Iterator[None]:
    with autocast_off, _float32_products():
        yield


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Context without TF32, whose relative error of 1e-3 hides small differences."""
    with _float32_products(), _float32_convolutions():
        yield


@contextlib.contextmanager
def _float32_products() -> Iterator[None]:
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # set by the names of PyTorch 2.9, which do not go with the older ones
        backends: Any = torch.backends
        with _ieee(backends.cuda.matmul, backends.mkldnn.matmul):
            yield
        return
    if before == 'highest':
        yield
        return
    torch.set_float32_matmul_precision('highest')
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def _float32_convolutions() -> Iterator[None]:
    cudnn: Any = torch.backends.cudnn
    try:
        before = cudnn.allow_tf32
    except RuntimeError:  # as above
        with _ieee(cudnn.conv, cudnn.rnn):
            yield
        return
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


@contextlib.contextmanager
def _ieee(*backends: Any) -> Iterator[None]:
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = 'ieee'
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value
