"""Optional C++ for the pooling on CPUs: circuit_cpu.cpp, compiled on the machine that uses it.

In float32 it replaces the PyTorch back end where GCP_MM_EXTENSION is 1 in the environment, or
where `backend='cpp'` asks for it. It needs a C++ compiler and ninja.
"""

import functools
import logging
import os
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .circuit import Circuit

NAME = 'gcp_mm_cpu'
SOURCE = Path(__file__).with_name('circuit_cpu.cpp')
# Not -ffast-math: NaN features have to give NaN.
FLAGS = ('-O3', '-march=native', '-fno-math-errno', '-fopenmp')


@dataclass(frozen=True)
class Extension:
    """The compiled operators; made by :func:`load`."""

    forward: torch._ops.OpOverloadPacket
    backward: torch._ops.OpOverloadPacket

    def pool_forward(
        self, x: Tensor, circuit: Circuit, keep: bool = True
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """Pooling of raw features; not differentiable, see :meth:`pool_backward`.

        Args:
            x: (B, D, N) features, not centred, float32, on the CPU.
            circuit: of the kind 'gram' if N < D, else 'covariance'.
            keep: whether to return what the backward needs.

        Returns:
            (B, D(D+1)/2), float32, the upper triangle of sqrt(tr) p(Sigma / tr), and what the
            backward needs besides `x`, in one chunk.

        Raises:
            TypeError: if `x` is not float32 on the CPU.
            ValueError: if it has another shape, or the circuit is of another kind.
        """
        _check(x, circuit)
        out, *saved = self.forward(x.contiguous(), *_coefficients(circuit))
        return out, [tuple(saved)] if keep else []

    def pool_backward(
        self, circuit: Circuit, grad: Tensor, x: Tensor, saved: list[tuple[Tensor, ...]]
    ) -> Tensor:
        """Gradient with respect to the raw features.

        Args:
            circuit: as in the forward.
            grad: gradient of the result, (B, D(D+1)/2), float32, on the CPU.
            x: as in the forward.
            saved: from the forward; if empty, the forward runs again.

        Returns:
            (B, D, N), float32.

        Raises:
            TypeError: if `x` or `grad` is not float32 on the CPU.
            ValueError: if they have another shape, or the circuit is of another kind.
        """
        _check(x, circuit)
        _check_float32('grad', grad)
        b, d, _ = x.shape
        if grad.shape != (b, d * (d + 1) // 2):
            raise ValueError(
                f'grad: expected shape {(b, d * (d + 1) // 2)}, got {tuple(grad.shape)}'
            )
        (saved,) = saved or self.pool_forward(x, circuit)[1]
        return self.backward(grad.contiguous(), x.contiguous(), *saved, *_coefficients(circuit))


def is_wanted() -> bool:
    """Whether the environment asks for it."""
    return os.environ.get('GCP_MM_EXTENSION', '0') == '1'


@functools.cache
def load() -> Extension:
    """Load the operators; the first time on a machine, compile them, in about half a minute.

    torch keeps what was compiled in its directory of extensions, `$TORCH_EXTENSIONS_DIR` or
    ~/.cache/torch_extensions, and compiles it again when the source changes.

    Raises:
        RuntimeError: if there is no C++ compiler or no ninja, or the compilation fails.
    """
    # Installed beside the interpreter, ninja is not on the path of an environment not activated.
    path = os.pathsep.join([os.environ.get('PATH', os.defpath), sysconfig.get_path('scripts')])
    compiler = os.environ.get('CXX', 'c++')
    if not shutil.which(compiler, path=path):
        raise RuntimeError(
            f'{NAME}: no C++ compiler {compiler!r} on the PATH: install one '
            '(`apt-get install g++`, `conda install gxx`), or name yours in the variable CXX'
        )
    if not shutil.which('ninja', path=path):
        raise RuntimeError(f'{NAME}: no ninja on the PATH: `pip install ninja`')
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
    before = os.environ.get('PATH')
    os.environ['PATH'] = path
    try:
        cpp_extension.load(
            NAME,
            str(SOURCE),
            extra_cflags=list(FLAGS),
            build_directory=str(folder),
            is_python_module=False,
        )
    finally:
        if before is None:
            del os.environ['PATH']
        else:
            os.environ['PATH'] = before
    return Extension(torch.ops.gcp_mm_cpu.forward, torch.ops.gcp_mm_cpu.backward)


def _check(x, circuit):
    _check_float32('x', x)
    if x.dim() != 3 or 0 in x.shape[1:]:
        raise ValueError(f'x: expected (B, D, N) features with D, N > 0, got {tuple(x.shape)}')
    kind = 'gram' if x.shape[2] < x.shape[1] else 'covariance'
    if circuit.kind != kind:
        raise ValueError(
            f'circuit: expected the kind {kind!r} for features {tuple(x.shape)}, '
            f'got {circuit.kind!r}'
        )


def _check_float32(name, tensor):
    if tensor.dtype != torch.float32 or tensor.device.type != 'cpu':
        raise TypeError(
            f'{name}: expected float32 on the CPU, got {tensor.dtype} on {tensor.device}'
        )


@functools.cache
def _coefficients(circuit):
    """a, the rows of b one after the other, c."""
    return list(circuit.a), [b for row in circuit.b for b in row], circuit.c
