"""Global covariance pooling (GCP) for PyTorch, MMPretrain and MMDetection.

With OpenMMLab's packages installed, importing this package registers its modules in mmengine's root
registries, so a config of either framework needs no more than::

    custom_imports = dict(imports=['gcp_mm'], allow_failed_imports=False)

and mmcv's operators are computed by torchvision if mmcv has no compiled ones. Without these
packages only :mod:`gcp_mm.ops` is of use, which needs PyTorch and NumPy. Neither mmdet nor mmcv's
operators are imported here.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

__version__ = '0.1.0'

NAMES = ['config_file', 'get_model', 'list_models', 'register_models']

if TYPE_CHECKING or (find_spec('mmengine') and find_spec('mmcv')):
    from .compat import apply_shims

    apply_shims()
    try:
        from . import data, models, robustness, runtime, studies  # noqa: F401  registers modules
        from .compat.base_configs import find_base_configs
        from .compat.numpy2 import allow_negative_hue
        from .hub import CONFIGS, config_file, get_model, list_models, register_models  # noqa: F401

        find_base_configs('gcp_mm', CONFIGS)
        allow_negative_hue()
    except ImportError as error:
        from .compat.packages import unmet_requirements

        reasons = list(unmet_requirements())
        if not reasons:
            raise
        raise ImportError('\n'.join([str(error), *reasons])) from error
    __all__ = NAMES
else:
    __all__ = []

    def __getattr__(name):
        if name in NAMES:
            raise ImportError(
                f'gcp_mm.{name} needs OpenMMLab\'s packages: pip install "gcp_mm[mm]"'
            )
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
