"""Leave out of a process what takes long in every short run, and no test is about."""

import gc

from mmengine.config import config
from yapf.yapflib import yapf_api


def plain_text(code: str, **style) -> tuple[str, bool]:
    """What yapf's FormatCode returns, without laying the code out."""
    return code, True


def make_quick() -> None:
    """Leave what is imported so far out of garbage collection, and the text of configs as it is.

    MMEngine collects garbage for each dataset, and formats the config of each run several times.
    """
    config.FormatCode = yapf_api.FormatCode = plain_text  # the fork imports it when it is used
    gc.collect()
    gc.freeze()
