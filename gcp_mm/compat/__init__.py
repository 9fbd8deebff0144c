"""What the supported versions of other packages need in order to work together."""

from .operators import operators_in_use, use_torchvision_operators
from .packages import check_families

__all__ = ['apply_shims', 'check_families', 'operators_in_use', 'use_torchvision_operators']


def apply_shims() -> None:
    """Make OpenMMLab's releases work with current versions; called by `import gcp_mm`."""
    from .numpy2 import add_in1d
    from .records import allow_records

    check_families()
    use_torchvision_operators()
    allow_records()
    add_in1d()
