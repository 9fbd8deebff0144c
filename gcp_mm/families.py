"""The two families of packages that provide mmcv, mmengine, mmdet and mmpretrain.

OpenMMLab's own packages and their maintained fork have the same import names under other
distribution names, so pip happily installs one over the other and leaves a mixture of both.
"""

from importlib import metadata

FAMILIES = {
    'openmmlab': ('mmcv', 'mmengine', 'mmdet', 'mmpretrain'),
    'onedl': ('onedl-mmcv', 'onedl-mmengine', 'onedl-mmdetection', 'onedl-mmpretrain'),
}


def check_families(installed=None) -> None:
    """Check that the installed OpenMMLab packages are all of one family.

    Args:
        installed: names of the installed distributions; by default those of this environment.

    Raises:
        ImportError: if packages of both families are installed, or none of either; the message
            says which and what to do.
    """
    if installed is None:
        installed = [name for names in FAMILIES.values() for name in names if _is_installed(name)]
    found = {
        family: [name for name in names if name in installed] for family, names in FAMILIES.items()
    }
    if all(found.values()):
        mixture = ' and '.join(f'{", ".join(names)} ({family})' for family, names in found.items())
        raise ImportError(
            f'packages of both families are installed over one another: {mixture}. They share '
            'their import names, so files of one replace those of the other. Uninstall them all '
            f'(pip uninstall {" ".join(installed)}) and install one family, or let `make install` '
            'set up a clean virtual environment.'
        )
    if not any(found.values()):
        raise ImportError(
            "neither OpenMMLab's packages nor their maintained fork are installed: run "
            '`make install`, or pip install "gcp_mm[onedl]" or "gcp_mm[openmmlab]"'
        )


def _is_installed(name):
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
