"""Networks by name, and the weights that they start from."""

import re
from dataclasses import dataclass

from ..checkpoints import load_pretrained
from ..checkpoints.pretrained import neck_reduction, read_weights
from ..models.gcp_resnet import GCPResNet

NAME = re.compile(r'resnet(18|34|50|101)(-gcp(?:-[dm])?)?')
STAGES = {18: (64, 128, 256, 512), 34: (64, 128, 256, 512)}
WIDE_STAGES = (256, 512, 1024, 2048)


@dataclass(frozen=True)
class Weights:
    """A checkpoint that fills the backbone.

    Attributes:
        checkpoint: its path.
        prefix: of the backbone's keys; '' in a file of the backbone alone, such as torchvision's.
        reduction: channels that its GCP neck reduces to; None where it has no such neck.
    """

    checkpoint: str
    prefix: str
    reduction: tuple[int, ...] | None


@dataclass(frozen=True)
class Network:
    """A ResNet.

    Attributes:
        depth: 18, 34, 50 or 101.
        pooling: whether it is one of global covariance pooling.
        conv5: down-sampling of a detector's last stage, as of :class:`.GCPResNet`.
        weights: what it starts from; None for random weights.
    """

    depth: int
    pooling: bool
    conv5: str
    weights: Weights | None = None

    @property
    def kind(self) -> str:
        """Ending of the base config of a classifier."""
        return 'gcp' if self.pooling else 'gap'

    @property
    def stages(self) -> tuple[int, ...]:
        """Channels of the stages."""
        return STAGES.get(self.depth, WIDE_STAGES)

    @property
    def width(self) -> int:
        """Channels of the last stage."""
        return self.stages[-1]

    def init_cfg(self, part: str) -> str:
        """Text of the `init_cfg` of 'backbone' or 'neck', with the name `checkpoint`."""
        prefix = f", prefix='{part}.'" if self.weights.prefix else ''
        return f"dict(type='Pretrained', checkpoint=checkpoint{prefix})"


def find_network(
    name: str, checkpoint: str | None = None, detector: bool = False, trust: bool = False
) -> Network:
    """Look up a network, and look at the weights that it is to start from.

    Args:
        name: 'resnet18', 'resnet34', 'resnet50' or 'resnet101', with '-gcp' for global covariance
            pooling; of a detector '-gcp-m' (the same) or '-gcp-d', as the paper has them.
        checkpoint: path of a file; None for random weights.
        detector: whether it is for one.
        trust: read a file that holds Python objects, which executes what is in it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for another name, or a file that does not fill the backbone.
    """
    match = NAME.fullmatch(name)
    if not match:
        endings = '-gcp, -gcp-d or -gcp-m' if detector else '-gcp'
        raise ValueError(
            'network: expected resnet18, resnet34, resnet50 or resnet101, alone or with '
            f'{endings}, got {name!r}'
        )
    depth, kind = int(match[1]), match[2]
    if kind in ('-gcp-d', '-gcp-m') and not detector:
        raise ValueError(f'network: {name!r} is of a detector; to classify take resnet{depth}-gcp')
    conv5 = 'maxpool' if kind in ('-gcp', '-gcp-m') else 'stride'
    weights = _find_weights(checkpoint, depth, trust) if checkpoint else None
    return Network(depth, kind is not None, conv5, weights)


def _find_weights(checkpoint, depth, trust):
    weights, _ = read_weights(checkpoint, trust=trust)
    prefix = 'backbone.' if any(key.startswith('backbone.') for key in weights) else ''
    load_pretrained(GCPResNet(depth), checkpoint, prefix, trust=trust)
    has_neck, reduction = neck_reduction(weights)
    return Weights(checkpoint, prefix, reduction if has_neck else None)
