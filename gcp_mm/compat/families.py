"""The two families of packages that provide mmcv, mmengine, mmdet and mmpretrain.

OpenMMLab's releases and their fork have the same import names under other distribution names, so
pip installs one over the other and leaves a mixture of both.
"""

from importlib import metadata

# Module: the distribution that gcp_mm's extra installs, then others with the same content.
FAMILIES = {
    'mm': dict(
        mmcv=('mmcv-lite', 'mmcv'),
        mmengine=('mmengine', 'mmengine-lite'),
        mmdet=('mmdet',),
        mmpretrain=('mmpretrain',),
    ),
    'onedl': dict(
        mmcv=('onedl-mmcv',),
        mmengine=('onedl-mmengine',),
        mmdet=('onedl-mmdetection',),
        mmpretrain=('onedl-mmpretrain',),
    ),
}


def check_families(installed: dict[str, str] | None = None) -> None:
    """Check that no two installed packages provide the same module with different files.

    Args:
        installed: versions of the installed distributions by name; by default those of this
            environment.

    Raises:
        ImportError: if packages of both families are installed, or mmcv-lite and mmcv of different
            versions; the message says which, and what to do.
    """
    if installed is None:
        installed = {
            name: version for name in distributions() if (version := installed_version(name))
        }
    found = {
        family: [name for name in distributions(family) if name in installed] for family in FAMILIES
    }
    if all(found.values()):
        mixture = ' and '.join(', '.join(group) for group in found.values())
        raise ImportError(
            "OpenMMLab's releases and their fork are installed over one another: "
            f'{mixture}. They share '
            'their import names, so files of one replace those of the other. Uninstall them all '
            f'(pip uninstall {" ".join(installed)}), then pip install "gcp_mm[mm]"'
        )
    for group in FAMILIES['mm'].values():
        versions = {name: installed[name] for name in group if name in installed}
        if len(set(versions.values())) > 1:
            shown = ' and '.join(f'{name} {version}' for name, version in versions.items())
            raise ImportError(
                f'{shown} are installed over one another: pip uninstall {" ".join(versions)}, '
                'then install one of them'
            )


def distributions(family: str | None = None) -> list[str]:
    """Names of the distributions of a family, or of both."""
    families = FAMILIES if family is None else [family]
    return [name for family in families for group in FAMILIES[family].values() for name in group]


def installed_version(name: str) -> str | None:
    """Version of a distribution, None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
