"""The precision every operation of this package computes in: float32, or float64 where asked."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
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
    with autocast_off, _float32(_products()):
        yield


def full_float32() -> contextlib.AbstractContextManager:
    """Context without TF32, whose relative error of 1e-3 hides small differences."""
    return _float32([*_products(), *_convolutions()])


# Name of a setting, its value that means float32, and the one that means no value of its own
NEWER = ('fp32_precision', 'ieee', 'none')
OLDER = ('allow_tf32', False, False)
Setting = tuple[Any, str, Any, Any]


def _products() -> list[Setting]:
    backends: Any = torch.backends
    if hasattr(backends.cuda.matmul, 'fp32_precision'):  # from PyTorch 2.9 on
        return [(backends.cuda.matmul, *NEWER), (backends.mkldnn.matmul, *NEWER)]
    return [(backends.cuda.matmul, *OLDER)]


def _convolutions() -> list[Setting]:
    backends: Any = torch.backends
    cudnn = backends.cudnn
    newer = getattr(backends, 'fp32_precision', 'none') == 'tf32'  # which then counts for them
    try:
        older = [(cudnn, *OLDER)] if cudnn.allow_tf32 in (True, False) else []
    except RuntimeError:  # where something is set by the newer name
        older, newer = [], True
    return [*older, (cudnn.conv, *NEWER), (cudnn.rnn, *NEWER)] if newer else older


@contextlib.contextmanager
def _float32(settings: Sequence[Setting]) -> Iterator[None]:
    found = [(*each, getattr(each[0], each[1])) for each in settings]
    changed = [each for each in found if each[-1] not in each[2:4]]
    try:
        for node, name, full, *_ in changed:
            setattr(node, name, full)
        yield
    finally:
        for node, name, _, none, value in reversed(changed):
            setattr(node, name, none)
            if none is False or getattr(node, name) != value:
                setattr(node, name, value)
