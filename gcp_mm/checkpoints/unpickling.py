"""The reader of the pickles in checkpoints: tensors, containers, numbers and strings.

A pickle names functions of any module, calls them and sets the states of objects. Here it can name
the stand-ins below, which look at their arguments first, and use the instructions that PyTorch
writes. PyTorch's own `weights_only` allows more, depending on its version: to allocate memory, to
hash what is nested too deeply for Python, to make tensors larger than what the file holds of them.
"""

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.storage import TypedStorage

from ..compat.records import RECORDS, refusal

HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
PLAIN = (str, bytes, int, float, bool, type(None))


def _tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    """In place of `torch._utils._rebuild_tensor` and `_v2`, which make more storage, or read on."""
    numbers = (offset, *size, *stride)
    # `metadata` says whether it is a conjugate
    if type(storage) is not TypedStorage or metadata or len(size) != len(stride):
        raise refusal('tensor with metadata or without storage')
    whole = all(type(n) is int and 0 <= n < 2**48 for n in numbers)
    if not whole or math.prod(size) >= 2**48:  # PyTorch counts in 64 bits
        raise ValueError(f'a tensor has shape {size} and stride {stride}')
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    held = storage._untyped_storage.nbytes()
    if 0 not in size and (last + 1) * storage._element_size() > held:
        raise ValueError(f'a tensor of shape {tuple(size)} has only {held} bytes')
    tensor = torch._utils._rebuild_tensor(storage, offset, size, stride)
    return tensor.requires_grad_(requires_grad is True)


def _parameter(data: Any, requires_grad: Any, hooks: Any, attributes: Any = None) -> nn.Parameter:
    if not isinstance(data, Tensor):
        raise refusal('parameter without a tensor')
    return nn.Parameter(data, requires_grad is True)


def _check_keys(keys: Iterable[Any]) -> None:
    """Numbers and strings, or tuples of them: the hash of deeply nested ones ends the process."""
    for key in keys:
        if not all(type(each) in PLAIN for each in (key if type(key) is tuple else (key,))):
            raise refusal(f'key of type {type(key).__name__}')


def _ordered(items: Iterable[Any] = ()) -> OrderedDict:
    pairs = [(key, value) for key, value in items]
    _check_keys(key for key, _ in pairs)
    return OrderedDict(pairs)


def _set(items: Any) -> set:
    _check_keys(items)
    return set(items)


# By the names in a file: what it may call, and what it may only name
CALLS: dict[str, Any] = {
    **RECORDS,
    'collections.OrderedDict': _ordered,
    'builtins.set': _set,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_parameter_with_state': _parameter,
}
NAMES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


def _refuser(code: int) -> Callable[['Unpickler'], None]:
    def refuse(self: 'Unpickler') -> None:
        if self.proto < 2:  # which PyTorch always says first: these bytes are no pickle of it
            raise ValueError(f'instruction {bytes([code])!r}')
        raise refusal(f'instruction {bytes([code])!r} of pickle')

    return refuse


class Unpickler(pickle._Unpickler):
    """Reads what a checkpoint holds; in Python, for its instructions to be limited.

    Attributes:
        size: bytes of the file. What its tensors take in memory is in proportion to it.
        records: bytes by key of what a zip archive holds for each storage; None for a file in the
            format before PyTorch 1.6.

    Raises:
        pickle.UnpicklingError: for anything else, with 'GLOBAL <name>' in its message.
        ValueError: for tensors that take more memory than the file accounts for.
    """

    # Attributes of pickle._Unpickler that type checkers do not know
    proto: int
    stack: list[Any]
    memo: dict[int, Any]
    append: Callable[[Any], None]
    load_binpersid: Callable[[], None]

    size: int
    records: dict[str, int] | None
    claimed = 0  # bytes of all tensors
    dispatch: ClassVar[dict] = {code: _refuser(code) for code in pickle._Unpickler.dispatch} | {
        code: pickle._Unpickler.dispatch[code]
        for name in (
            *('PROTO', 'STOP', 'MARK', 'GLOBAL', 'BINGET', 'LONG_BINGET', 'BINPUT', 'LONG_BINPUT'),
            *('NONE', 'NEWTRUE', 'NEWFALSE', 'BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT'),
            *('BINUNICODE', 'SHORT_BINSTRING', 'EMPTY_TUPLE', 'TUPLE', 'TUPLE1', 'TUPLE2'),
            *('TUPLE3', 'EMPTY_LIST', 'EMPTY_DICT'),
            *('FRAME', 'MEMOIZE', 'SHORT_BINUNICODE', 'STACK_GLOBAL'),  # of protocol 4
        )
        for code in getattr(pickle, name)
    }

    def find_class(self, module: str, name: str) -> Any:
        name = f'{module}.{name}'.replace('__builtin__', 'builtins')  # Python 2's name of it
        if name not in CALLS and name not in NAMES:
            raise refusal(name)
        return CALLS.get(name) or NAMES[name]

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not any(function is known for known in CALLS.values()):
            raise refusal(f'{function!r}, called')
        result = function(*arguments)
        if isinstance(result, Tensor):
            self.claimed += result.numel() * result.element_size()
            self._check(self.claimed, 8 * self.size + 2**28, 'all tensors')
        self.append(result)

    def _new(self) -> None:
        if self.stack[-1] != () or self.stack[-2] is not RECORDS[HISTORY]:
            raise refusal(f'{self.stack[-2]!r}, made')
        self.stack[-2:] = [self.stack[-2]()]

    def _build(self) -> None:
        state, built = self.stack.pop(), self.stack[-1]
        if type(built) is OrderedDict and type(state) is dict and state.keys() <= {'_metadata'}:
            built.__dict__.update(state)
        elif type(built) in RECORDS.values():
            built.__setstate__(state)
            if isinstance(built, np.ndarray):
                self._replace(built, built.view(np.ndarray))
        else:
            raise refusal(f'{type(built).__name__}, given a state')

    def _replace(self, stand_in: Any, value: Any) -> None:
        self.stack[-1] = value
        for key, known in reversed(self.memo.items()):  # it was noted last
            if known is stand_in:
                self.memo[key] = value
                return

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise refusal(f'{type(self.stack[-1]).__name__}, appended to')
        self.stack[-1].extend(items)

    def _set_items(self, items: list[Any]) -> None:
        if type(self.stack[-1]) not in (dict, OrderedDict):
            raise refusal(f'{type(self.stack[-1]).__name__}, changed')
        _check_keys(items[::2])
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _storage(self) -> None:
        """Hand a storage's name to PyTorch, if the file has as many bytes as it says."""
        _, kind, key, _, count = self.stack[-1][:5]
        if self.stack[-1][0] not in ('storage', b'storage') or type(count) is not int or count < 0:
            raise refusal(f'{self.stack[-1][0]!r}, loaded')
        held = self.size if self.records is None else self.records.get(key, 0)
        self._check(count * torch._utils._element_size(kind.dtype), held, f'storage {key!r}')
        self.load_binpersid()

    def _check(self, claimed: int, held: int, what: str) -> None:
        if claimed > held:
            raise ValueError(
                f'{what} would take {claimed:,} bytes, and the file of {self.size:,} bytes has no '
                'values for them'
            )

    dispatch.update(
        {
            pickle.REDUCE[0]: _reduce,
            pickle.NEWOBJ[0]: _new,
            pickle.BUILD[0]: _build,
            pickle.APPEND[0]: lambda self: self._extend([self.stack.pop()]),
            pickle.APPENDS[0]: lambda self: self._extend(self.pop_mark()),
            pickle.SETITEM[0]: lambda self: self._set_items([self.stack.pop(-2), self.stack.pop()]),
            pickle.SETITEMS[0]: lambda self: self._set_items(self.pop_mark()),
            pickle.BINPERSID[0]: _storage,
        }
    )
