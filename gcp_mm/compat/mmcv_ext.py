"""mmcv's compiled operators, computed by torchvision and PyTorch.

`gcp_mm.compat` loads this file as the module `mmcv._ext` where the installed mmcv has no compiled
part (`mmcv-lite`). Names, arguments and results are those of mmcv's C++ interface, which writes
into tensors that it is given; mmcv's own `mmcv.ops` calls it. Half precision is computed in
float32. Operators that are not here raise when they are called.

It answers open-mmlab/mmdetection issues 3271, 11475, 11983 and 12426 and open-mmlab/mmpretrain
issue 1966: "No module named 'mmcv._ext'".
"""

import torchvision

from gcp_mm.compat import box_operators, map_operators


def __getattr__(name: str):
    """The operator of that name, or one that raises when it is called."""
    if name.startswith('__'):
        raise AttributeError(name)
    for operators in (box_operators, map_operators):
        if hasattr(operators, name):
            return getattr(operators, name)

    def missing(*args, **kwargs):
        raise RuntimeError(
            f'the installed mmcv has no compiled operators, and {name!r} has no equivalent in '
            'torchvision: install an mmcv with compiled operators in its place, see '
            'https://mmcv.readthedocs.io/en/2.x/get_started/installation.html'
        )

    return missing


def get_compiler_version() -> str:
    """Compiler of the operators, which mmcv and mmdet print."""
    return f'none, operators of torchvision {torchvision.__version__}'


def get_compiling_cuda_version() -> str:
    """CUDA version of torchvision's operators."""
    return torchvision.version.cuda or 'not available'
