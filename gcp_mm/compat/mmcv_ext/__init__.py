"""mmcv's compiled operators, computed by torchvision and PyTorch.

`gcp_mm.compat` loads this package as the module `mmcv._ext` where the installed mmcv has no
compiled part (`mmcv-lite`). Names, arguments and results are those of mmcv's C++ interface, which
writes into tensors that it is given; mmcv's own `mmcv.ops` calls it. Half precision is computed in
float32. Operators that are not here raise when they are called.

It answers open-mmlab/mmdetection issues 3271, 11475, 11983 and 12426 and open-mmlab/mmpretrain
issue 1966: "No module named 'mmcv._ext'".
"""

import torchvision

from .boxes import nms, nms_match, softnms  # noqa: F401
from .deformable import (  # noqa: F401
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
    ms_deform_attn_backward,
    ms_deform_attn_forward,
)
from .focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward  # noqa: F401
from .roi import (  # noqa: F401
    roi_align_backward,
    roi_align_forward,
    roi_pool_backward,
    roi_pool_forward,
)


def __getattr__(name: str):
    """Make an operator that raises, for each name that mmcv.ops looks up and that is not here."""
    if name.startswith('__'):
        raise AttributeError(name)

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
