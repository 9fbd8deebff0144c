"""The precision every operation of this package computes in: float32, or float64 where asked."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Op = TypeVar('Op', bound=Callable[..., Tensor])


def full_precision(op: Op) -> Op:
    """Decorate `op` to run with autocast off on a first argument of at least float32.

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
        with autocast_off(x.device.type):
            return op(x if x.dtype == torch.float64 else x.float(), *args, **kwargs)

    return cast(Op, wrapper)


def autocast_off(device_type: str) -> contextlib.AbstractContextManager:
    """Context in which autocast casts nothing; the backward of a Function needs its own."""
    # Tensors on 'meta' (shape inference, operation counting) have no autocast to turn off.
    if device_type == 'meta':
        return contextlib.nullcontext()
    return torch.autocast(device_type, enabled=False)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Context without TF32, whose relative error of 1e-3 hides small differences."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before
