"""Networks of https://arxiv.org/abs/2003.11241 as mmengine modules."""

from mmengine.registry import MODELS

from .gcp_neck import GlobalCovariancePooling

__all__ = ['GCPResNet', 'GlobalCovariancePooling']


# mmpretrain.models imports mmdet and mmcv's compiled operators wherever they are installed, which
# takes seconds and fails where they are broken. The registry therefore holds a function that
# imports the class, and gives it its place in the registry, when a config first asks for it.
@MODELS.register_module(name='GCPResNet')
def build_gcp_resnet(*args, **kwargs):
    """Build a :class:`gcp_mm.models.gcp_resnet.GCPResNet`."""
    from .gcp_resnet import GCPResNet

    return GCPResNet(*args, **kwargs)


def __getattr__(name):
    if name == 'GCPResNet':
        from .gcp_resnet import GCPResNet

        return GCPResNet
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
