"""Reads crafted checkpoints: a fault ends the process by a signal. Argument: what to read."""

import copy
import io
import pickle
import random
import sys

import numpy as np
import torch
from torch.storage import TypedStorage

from gcp_mm.checkpoints import read_checkpoint
from gcp_mm.checkpoints.unpickling import CALLS, NAMES, Unpickler
from tests.helpers.pickles import random_program


class Limited(Unpickler):
    """As of a file of 16 bytes of numbers."""

    size, records = 16, {'0': 16}

    def persistent_load(self, name):
        return TypedStorage(
            wrap_storage=torch.UntypedStorage(16), dtype=torch.float32, _internal=True
        )


def use(value):
    """Touch whatever a file gave."""
    repr(value)
    copy.deepcopy(value)
    if isinstance(value, np.ndarray):
        value.tolist()
        for field in value.dtype.names or ():
            value[field].tolist()


if sys.argv[1] == 'programs':
    draw = random.Random(0)
    names = ['/'.join(name.rpartition('.')[::2]) for name in (*CALLS, *NAMES) if '.' in name]
    names += ['torch/FloatStorage', 'os/mkdir', 'numpy/frombuffer', 'builtins/eval']
    read, refused = 0, 0
    for _ in range(int(sys.argv[2])):
        try:
            value = Limited(io.BytesIO(random_program(draw, names))).load()
            read += 1
            use(value)
        except Exception:  # whatever it is, it is an error
            refused += 1
    print(f'read {read}, refused {refused}')
else:
    for path in sys.argv[2:]:
        for reader in (read_checkpoint, lambda path: torch.load(path, weights_only=True)):
            try:
                use(reader(path)['a'])
            except (ValueError, pickle.UnpicklingError) as error:
                print(path, 'refused:', error)
