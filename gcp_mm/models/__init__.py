"""Networks of https://arxiv.org/abs/2003.11241 as mmengine modules."""

from importlib import import_module

from mmengine.registry import MODELS

from .all_reduce_bn import AllReduceBatchNorm
from .gcp_neck import GlobalCovariancePooling

# mmpretrain.models imports mmdet and mmcv's operators wherever they are installed, which
# takes seconds and fails where they are broken. For the subclasses of MMPretrain's classes the
# registry therefore holds a function that imports the class, and gives it its place in the
# registry, when a config first asks for it.
SUBCLASSES = {
    'DropoutLinearClsHead': 'dropout_head',
    'GCPResNet': 'gcp_resnet',
    'GCPShuffleNetV2': 'gcp_shufflenet',
}

__all__ = ['AllReduceBatchNorm', 'GlobalCovariancePooling', *SUBCLASSES]


def __getattr__(name):
    if name in SUBCLASSES:
        return getattr(import_module(f'.{SUBCLASSES[name]}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def _builder(name):
    def build(*args, **kwargs):
        return __getattr__(name)(*args, **kwargs)

    return build


for _name in SUBCLASSES:
    MODELS.register_module(name=_name, module=_builder(_name))
