"""What the supported versions of other packages need in order to work together."""

from .families import check_families
from .operators import operators_in_use, use_torchvision_operators

__all__ = ['apply_shims', 'check_families', 'operators_in_use', 'use_torchvision_operators']


def apply_shims() -> None:
    """Make OpenMMLab's releases work with current versions; called by `import gcp_mm`."""
    from .numpy_names import add_removed_names
    from .records import allow_records

    check_families()
    use_torchvision_operators()
    allow_records()
    add_removed_names()
