"""The pooling of :mod:`.circuit` in C++ for CPUs: circuit_cpu.cpp, compiled where it is used.

In float32 it replaces PyTorch where GCP_MM_EXTENSION is 1 in the environment, or where
`method='cpp'` asks for it. It needs a C++ compiler and ninja.
"""

import functools
import logging
import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .circuit import Circuit

NAME = 'gcp_mm_cpu'
SOURCE = Path(__file__).with_name('circuit_cpu.cpp')
# Not -ffast-math: NaN features have to give NaN.
FLAGS = ['-O3', '-march=native', '-fno-math-errno', '-fopenmp']


def pool_forward(x: Tensor, circuit: Circuit, keep: bool = True) -> tuple[Tensor, list[Tensor]]:
    """The forward of :func:`.backends.find_backend`, for float32 features on the CPU."""
    out, saved = load().forward(x.contiguous(), *_coefficients(circuit))
    return out, [saved] if keep else []


def pool_backward(circuit: Circuit, grad: Tensor, x: Tensor, saved: list[Tensor]) -> Tensor:
    """The backward of :func:`.backends.find_backend`."""
    return load().backward(grad.contiguous(), x.contiguous(), *saved, *_coefficients(circuit))


def is_wanted() -> bool:
    """Whether the environment asks for it."""
    return os.environ.get('GCP_MM_EXTENSION', '0') == '1'


@functools.cache
def load() -> Any:
    """Load the operators; the first time on a machine, compile them, in about half a minute.

    torch keeps what was compiled in its directory of extensions, `$TORCH_EXTENSIONS_DIR` or
    ~/.cache/torch_extensions, and compiles it again when the source changes.

    Returns:
        The namespace of the operators `forward` and `backward`.

    Raises:
        RuntimeError: if there is no C++ compiler or no ninja, or the compilation fails.
    """
    # Installed beside the interpreter, ninja is not on the path of an environment not activated.
    before = os.environ.get('PATH', os.defpath)
    path = os.pathsep.join([before, sysconfig.get_path('scripts')])
    for tool, remedy in (
        (os.environ.get('CXX', 'c++'), 'install g++ or clang++, or name yours in the variable CXX'),
        ('ninja', '`pip install ninja`'),
    ):
        if not shutil.which(tool, path=path):
            raise RuntimeError(f'{NAME}: no {tool!r} on the PATH: {remedy}')
    from torch.utils import cpp_extension  # slow, and only needed here

    # By torch and instruction set: a home directory may serve several machines.
    root = os.environ.get('TORCH_EXTENSIONS_DIR') or cpp_extension.get_default_build_root()
    capability = torch.backends.cpu.get_cpu_capability().replace(' ', '-')
    folder = Path(root) / f'{NAME}-{torch.__version__}-{capability}'
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / f'{NAME}.so').exists():
        logging.getLogger(__name__).warning(
            'compiling %s into %s, about half a minute', SOURCE.name, folder
        )
    os.environ['PATH'] = path
    try:
        cpp_extension.load(
            NAME,
            str(SOURCE),
            extra_cflags=FLAGS,
            build_directory=str(folder),
            is_python_module=False,
        )
    finally:
        os.environ['PATH'] = before
    return torch.ops.gcp_mm_cpu


@functools.cache
def _coefficients(circuit: Circuit) -> tuple[list[float], list[float], float]:
    """a, the rows of b one after the other, c."""
    return list(circuit.a), [b for row in circuit.b for b in row], circuit.c
