"""What mmengine's Runner saves beside the weights, rebuilt by functions of this project alone.

From PyTorch 2.6 on `torch.load` reads tensors and plain Python values alone, unless it is told
otherwise, and so refuses the checkpoints of mmengine: open-mmlab/mmengine issue 1655. A file says
with which arguments a function is called and which state an object gets, and NumPy's own functions
trust both: a dtype whose state hides that it holds objects makes Python follow addresses from the
file. So a file gets stand-ins, which look at what it says first.
"""

import math
import pickle
import re
from collections import Counter
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


def refusal(what: str) -> pickle.UnpicklingError:
    """The error for what a file may not do, in the form of PyTorch's own."""
    return pickle.UnpicklingError(f'Unsupported global: GLOBAL {what}')


class _Kind:
    """In place of `numpy.dtype`: a kind of number, of fixed size."""

    def __init__(self, name, align=False, copy=True):
        if type(name) is not str or not re.fullmatch('b1|[iu][1248]|f[248]', name):
            raise refusal(f'numpy.dtype of {name!r}')
        self.dtype = np.dtype(name)

    def __setstate__(self, state):
        orders = {(3, order, None, None, None, -1, -1, 0): order for order in '<>|'}
        # Compared, not hashed: what is nested too deeply has no hash.
        if type(state) is not tuple or state not in list(orders):
            raise refusal('numpy.dtype with a state of its own')
        self.dtype = self.dtype.newbyteorder(orders[state])

    def __reduce__(self):
        return self.dtype.__reduce__()


class _Array(np.ndarray):
    """In place of `numpy.ndarray`: empty until its state is one of numbers, and as many as said."""

    def __new__(cls):
        return super().__new__(cls, 0)

    def __setstate__(self, state):
        _, shape, kind, fortran, content = state
        if type(kind) is not _Kind or type(content) is not bytes or type(shape) is not tuple:
            raise refusal('numpy.ndarray of other things than numbers')
        counts = len(shape) <= 32 and all(type(n) is int and 0 <= n < 2**40 for n in shape)
        if not counts or math.prod(shape) * kind.dtype.itemsize != len(content):
            raise refusal(f'numpy.ndarray of shape {shape} in {len(content)} bytes')
        super().__setstate__((1, shape, kind.dtype, bool(fortran), content))

    def __reduce__(self):
        return self.view(np.ndarray).__reduce__()


class _History(HistoryBuffer):
    """In place of a HistoryBuffer, which it becomes; it has the statistics of this process."""

    def __new__(cls):
        return super().__new__(cls)

    def __setstate__(self, state):
        series = [state.get(key) for key in ('_log_history', '_count_history')]
        if (
            state.keys() - {'statistics_methods'}
            != {'max_length', '_log_history', '_count_history'}
            or type(state['max_length']) is not int
            or not all(isinstance(each, np.ndarray) and each.ndim == 1 for each in series)
            or len(series[0]) != len(series[1])
        ):
            raise refusal('HistoryBuffer with a state of its own')
        self._set_default_statistics()
        self.max_length = state['max_length']
        self._log_history, self._count_history = map(np.array, series)
        self.__class__ = HistoryBuffer


def _array(kind, *_):
    """In place of NumPy's `_reconstruct`."""
    if kind is not _Array:
        raise refusal('_reconstruct of something else than an array')
    return _Array()


def _scalar(kind, content):
    if type(kind) is not _Kind or type(content) is not bytes:
        raise refusal('numpy.scalar of something else than a number')
    if len(content) != kind.dtype.itemsize:
        raise refusal(f'numpy.scalar in {len(content)} bytes')
    return np.frombuffer(content, kind.dtype)[0]


def _attribute(owner, name):
    """In place of `getattr`, by which a HistoryBuffer names its own statistics."""
    if owner is not _History or type(name) is not str or name.startswith('_'):
        raise refusal(f'getattr of {name!r}')
    return None


def _encode(text, encoding):
    """In place of `codecs.encode`, by which the bytes of arrays are written."""
    if type(text) is not str or encoding != 'latin1':
        raise refusal(f'_codecs.encode by {encoding!r}')
    return text.encode(encoding)


def _no_bytes():
    """In place of `bytes`, by which empty bytes are written."""
    return b''


def _counter(counts=None):
    """In place of `Counter`, of the milestones of a schedule."""
    if type(counts) not in (dict, type(None)):
        raise refusal('collections.Counter of something else than a dict')
    return Counter(counts)


# By the names in a file. NumPy's are those of the version that wrote it.
RECORDS: dict[str, Any] = {
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    'builtins.getattr': _attribute,
    'builtins.bytes': _no_bytes,
    'collections.Counter': _counter,
    '_codecs.encode': _encode,
    'numpy.ndarray': _Array,
    'numpy.dtype': _Kind,
    **{
        f'numpy.{core}.multiarray.{name}': function
        for core in ('core', '_core')
        for name, function in (('_reconstruct', _array), ('scalar', _scalar))
    },
}


def allow_records() -> None:
    """Let `torch.load` with `weights_only=True` read a Runner's checkpoints, and no more."""
    if hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):  # PyTorch 2.6
        torch.serialization.add_safe_globals([(value, name) for name, value in RECORDS.items()])
