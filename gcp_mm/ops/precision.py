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

    Autocast casts nothing there and, unless a compiler, an exporter or torch.func records, float32
    is not rounded to TF32 or bfloat16. The backward of a Function needs its own.
    """
    # Tensors on 'meta' (shape inference, operation counting) have no autocast to turn off.
    if x.is_meta:
        return contextlib.nullcontext()
    autocast_off = torch.autocast(x.device.type, enabled=False)
    return autocast_off if is_traced(x) else _in_both(autocast_off)


@contextlib.contextmanager
def _in_both(autocast_off: contextlib.AbstractContextManager) -> Iterator[None]:
    with autocast_off, _float32('matmul'):
        yield


def full_float32() -> contextlib.AbstractContextManager:
    """Context without TF32, whose relative error of 1e-3 hides small differences."""
    return _float32('matmul', 'conv')


@contextlib.contextmanager
def _float32(*operations: str) -> Iterator[None]:
    """Context in which operations on float32, 'matmul' or 'conv', are computed in float32."""
    backends: Any = torch.backends
    key: str
    inherited: Any
    full: Any
    places: dict[str, tuple[Any, ...]]
    if hasattr(backends.cuda.matmul, 'fp32_precision'):
        key, inherited, full = 'fp32_precision', 'none', 'ieee'  # 'none': that of all backends
        places = {
            'matmul': (backends.cuda.matmul, backends.mkldnn.matmul),
            'conv': (backends.cudnn.conv, backends.mkldnn.conv),
        }
    else:  # PyTorch before 2.9
        key, inherited, full = 'allow_tf32', False, False
        places = {'matmul': (backends.cuda.matmul,), 'conv': (backends.cudnn,)}
    nodes = [(node, getattr(node, key)) for each in operations for node in places[each]]
    changed = [(node, value) for node, value in nodes if value not in (inherited, full)]
    try:
        for node, _ in changed:
            setattr(node, key, full)
        yield
    finally:
        for node, value in changed:
            setattr(node, key, inherited)
            if getattr(node, key) != value:
                setattr(node, key, value)
