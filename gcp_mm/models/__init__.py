"""Networks of https://arxiv.org/abs/2003.11241 and of later methods as mmengine modules."""

from importlib import import_module
from typing import TYPE_CHECKING

from mmengine.registry import MODELS

from ..compat.lazy import register_lazily
from .all_reduce_bn import AllReduceBatchNorm
from .gcp_neck import GlobalCovariancePooling

# Subclasses of MMPretrain's classes, registered lazily: mmpretrain.models imports mmdet and mmcv's
# operators wherever they are installed, which takes seconds and fails where they are broken.
SUBCLASSES = {
    'DropoutLinearClsHead': f'{__name__}.dropout_head',
    'GCPResNet': f'{__name__}.gcp_resnet',
    'GCPShuffleNetV2': f'{__name__}.gcp_shufflenet',
    'MomentProbingHead': f'{__name__}.moment_probing_head',
    'SoTHead': f'{__name__}.sot_head',
    'SoTSwinTransformer': f'{__name__}.sot_transformer',
    'SoTVisionTransformer': f'{__name__}.sot_transformer',
}

__all__ = ['AllReduceBatchNorm', 'GlobalCovariancePooling', *SUBCLASSES]

for _name, _module in SUBCLASSES.items():
    register_lazily(MODELS, _name, _module)

if TYPE_CHECKING:
    from .dropout_head import DropoutLinearClsHead as DropoutLinearClsHead
    from .gcp_resnet import GCPResNet as GCPResNet
    from .gcp_shufflenet import GCPShuffleNetV2 as GCPShuffleNetV2
    from .moment_probing_head import MomentProbingHead as MomentProbingHead
    from .sot_head import SoTHead as SoTHead
    from .sot_transformer import SoTSwinTransformer as SoTSwinTransformer
    from .sot_transformer import SoTVisionTransformer as SoTVisionTransformer
else:

    def __getattr__(name):
        if name in SUBCLASSES:
            return getattr(import_module(SUBCLASSES[name]), name)
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
