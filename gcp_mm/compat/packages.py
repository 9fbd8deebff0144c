"""The packages that provide mmcv, mmengine, mmdet and mmpretrain, by their metadata.

OpenMMLab's releases and their fork have the same import names under other distribution names, so
pip installs one over the other and leaves a mixture of both.
"""

from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from .operators import operators_in_use

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


def installed_family() -> str:
    """Name of the family that is installed, 'mm' where none is."""
    return next(
        (family for family in FAMILIES if any(map(installed_version, distributions(family)))), 'mm'
    )


def unmet_requirements() -> Iterator[str]:
    """In words, each package that gcp_mm requires and finds absent or of another version.

    Each text ends with the command that installs it. These are the packages of `setup.py` for the
    installed family; `pip check` compares those that other packages require. An absent mmdet, which
    detectors alone need, is left out.
    """
    family = installed_family()
    try:
        lines = metadata.requires('gcp_mm') or []
    except metadata.PackageNotFoundError:  # a checkout on PYTHONPATH
        return
    for need in map(Requirement, lines):
        if need.marker and not need.marker.evaluate({'extra': family}):
            continue
        name, version = _provider(need.name)
        remedy = f'pip install "{name}{need.specifier}"'
        if version is None:
            if name not in FAMILIES[family]['mmdet']:
                yield f'{name} is not installed: {remedy}'
        elif not need.specifier.contains(version, prereleases=True):
            yield f'{name} {version} is outside the range that gcp_mm is tested with: {remedy}'


def versions() -> str:
    """Versions of the packages that matter most, and mmcv's operators, in one line."""
    shown = ('gcp_mm', 'torch', 'torchvision', *distributions())
    found = {name: version for name in shown if (version := installed_version(name)) is not None}
    listed = ', '.join(f'{name} {version}' for name, version in found.items())
    return f'{listed}; operators of mmcv: {operators_in_use()}'


def _provider(name):
    """The installed distribution with the content of another, and its version; None without."""
    groups = [group for modules in FAMILIES.values() for group in modules.values()]
    group = next((group for group in groups if name in group), (name,))
    return next(((n, version) for n in group if (version := installed_version(n))), (name, None))
