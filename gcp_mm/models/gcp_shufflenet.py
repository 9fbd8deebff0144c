"""ShuffleNetV2 as the paper's authors train it.

Ma et al., ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, ECCV 2018,
https://arxiv.org/abs/1807.11164.
"""

from mmengine.registry import MODELS
from mmpretrain.models.backbones import ShuffleNetV2
from torch import nn

from .pretrained import StrictlyPretrained, pretrained_entries


# force: the class takes the place of the function that imported this module.
@MODELS.register_module(force=True)
class GCPShuffleNetV2(StrictlyPretrained, ShuffleNetV2):
    """MMPretrain's ShuffleNetV2 with PyTorch's own initialization of its convolutions.

    The paper's networks are torchvision's, which initialize nothing by hand. Its parent does, and
    lets no `init_cfg` but a `Pretrained` one prevail. Here that has to fill the whole network.
    Weights, names and arguments are the parent's.
    """

    def init_weights(self) -> None:
        """Initialize as PyTorch does, or from the checkpoint of a `Pretrained` `init_cfg`."""
        super().init_weights()
        if not pretrained_entries(self.init_cfg):
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    module.reset_parameters()
