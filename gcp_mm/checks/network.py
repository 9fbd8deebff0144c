"""The network of a config, built and tried on one batch."""

import copy
import math

from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import nn

from .checkpoints import pretrained_modules
from .finding import Finding
from .memory import saved_bytes

IMAGES = 2  # batch normalisation of a 1x1 map wants more than one
# What a Runner keeps of its progress, and some modules read: YOLOX of its batches' size
STARTED = dict(iter=0, max_iters=1, epoch=0, max_epochs=1)


class Trial:
    """A network, and what its first training step took.

    Attributes:
        model: the network, None until it is built.
        pretrained: of :func:`.trunk.pretrained_modules`.
        saved: bytes that the forward pass kept for the backward, None until there was one.
        images: in that pass.
    """

    def __init__(self):
        self.model = None
        self.pretrained = []
        self.saved = None
        self.images = 0

    def build(self, cfg: Config) -> list[Finding]:
        """Build the network and initialise it, checkpoints apart, which may be far away."""
        config = copy.deepcopy(cfg.model)
        if cfg.get('data_preprocessor') is not None:
            config.setdefault('data_preprocessor', cfg.data_preprocessor)
        model = revert_sync_batchnorm(MODELS.build(config))  # SyncBN needs GPUs
        self.pretrained = pretrained_modules(model)
        for _, module, _ in self.pretrained:
            module.init_cfg = None
        model.init_weights()
        self.model = model
        return [Finding('ok', f'{type(model).__name__}, {_millions(model)}')]

    def step(self, data: dict, origin: str) -> list[Finding]:
        """Compute the loss of a batch as a training step does.

        Args:
            data: the batch.
            origin: of it, in words.

        Raises:
            ValueError: if the loss is not finite.
        """
        hub = MessageHub.get_current_instance()
        for key, value in STARTED.items():
            hub.update_info(key, value)
        self.model.train()
        images = len(data.get('data_samples') or data['inputs'])
        with saved_bytes(self.model) as saved:
            data = self.model.data_preprocessor(data, training=True)
            losses = self.model(**data, mode='loss')
        loss, parts = self.model.parse_losses(losses)
        values = ', '.join(f'{name} {value.item():.4g}' for name, value in parts.items())
        if not math.isfinite(loss.item()):
            raise ValueError(f'the loss of {origin} is not finite: {values}')
        self.saved = sum(saved.values())
        self.images = images
        return [Finding('ok', f'of {origin}: {values}')]


def _millions(model: nn.Module) -> str:
    number = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    text = f'{number / 1e6:.2f} M parameters'
    return text if trained == number else f'{text}, {trained / 1e6:.2f} M of them trained'
