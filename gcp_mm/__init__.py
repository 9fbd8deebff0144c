"""Global covariance pooling (GCP) for MMPretrain and MMDetection.

Importing the package registers its modules in mmengine's root registries, so a config of either
framework needs no more than::

    custom_imports = dict(imports=['gcp_mm'], allow_failed_imports=False)

It imports neither mmdet nor mmcv's compiled operators. `gcp_mm.ops` is pure PyTorch.
"""

from .families import check_families

check_families()

try:
    from . import engine, images, models, robustness  # noqa: F401  registers modules
except ImportError as error:
    from .requirements import unmet_requirements

    reasons = list(unmet_requirements())
    if not reasons:
        raise
    raise ImportError('\n'.join([str(error), *reasons])) from error
from .zoo import config_file, get_model, list_models, register_models  # noqa: E402

__all__ = ['config_file', 'get_model', 'list_models', 'register_models']
__version__ = '0.1.0'
