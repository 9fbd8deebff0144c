"""A `Pretrained` `init_cfg` that fills all of the module, or raises."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmengine.model.weight_init import update_init_info

from ..checkpoints import is_pretrained, load_pretrained


def pretrained_entries(init_cfg: dict | Sequence[dict] | None) -> list[dict]:
    """The `Pretrained` entries of an `init_cfg`."""
    init_cfgs = [init_cfg] if isinstance(init_cfg, dict) else init_cfg or ()
    return [each for each in init_cfgs if is_pretrained(each)]


class StrictlyPretrained(BaseModule):
    """Makes the `Pretrained` `init_cfg` of the module after it strict.

    mmengine's only logs the keys that do not match, and trains on from random weights. For
    `checkpoint`, `prefix` and what is raised see :func:`gcp_mm.checkpoints.load_pretrained`::

        class Backbone(StrictlyPretrained, ResNet): ...
    """

    def init_weights(self) -> None:
        """Initialize as `init_cfg` says; a `Pretrained` one has to fill all of the module."""
        pretrained = pretrained_entries(self.init_cfg)
        if not pretrained:
            super().init_weights()
            return
        # All of the module is filled, so that nothing is left for other entries to initialize.
        options = {key: value for key, value in pretrained[-1].items() if key != 'type'}
        load_pretrained(self, **options)
        if hasattr(self, '_params_init_info'):  # mmengine's record of who set which weight
            update_init_info(self, f'{type(self).__name__}: load from {options["checkpoint"]}')
        self.is_init = True
