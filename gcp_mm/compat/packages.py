"""The packages that provide mmcv, mmengine, mmdet and mmpretrain, by their metadata.

OpenMMLab's releases and their fork have the same import names under other distribution names, so
pip installs one over the other and leaves a mixture of both.
"""

from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
# What the families are compiled against, or pass arrays to: another version fails at its import or
# in the middle of a run.
SHARED = ('torch', 'torchvision', 'numpy', 'opencv-python', 'opencv-python-headless')


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


def distribution_of(module: str) -> str:
    """Name of the installed distribution of a module, such as 'mmcv-lite' for 'mmcv'.

    Args:
        module: 'mmcv', 'mmengine', 'mmdet' or 'mmpretrain'.
    """
    return _provider(FAMILIES[installed_family()][module][0])[0]


def requirement_of(module: str) -> str:
    """What gcp_mm requires for a module of the family, such as 'mmcv-lite<2.2,>=2.1'.

    Args:
        module: 'mmcv', 'mmengine', 'mmdet' or 'mmpretrain'.
    """
    family = installed_family()
    name = FAMILIES[family][module][0]
    named = [need for need in _requirements('gcp_mm', family) if need.name == name]
    return _shown(named[0]) if named else name


def unmet_requirements(optional: tuple[str, ...] = ()) -> Iterator[str]:
    """In words, each installed version outside the range another package names, with a remedy.

    Looked at are the ranges of gcp_mm (its `setup.py`) for the family that is installed, and those
    that PyTorch, torchvision, numpy, OpenCV and the family name of one another.

    Args:
        optional: modules of the family that may be absent.
    """
    family = installed_family()
    absent = [FAMILIES[family][module][0] for module in optional]
    for need in _requirements('gcp_mm', family):
        name, version = _provider(need.name)
        if version is None and need.name not in absent:
            yield f'{need.name} is not installed: pip install "{_shown(need)}"'
        elif version is not None and not need.specifier.contains(version, prereleases=True):
            yield (
                f'{name} {version} is outside the range that gcp_mm is tested with: '
                f'pip install "{name}{need.specifier}"'
            )
    together = {canonicalize_name(name) for name in (*SHARED, *distributions(family))}
    for name in sorted(together):
        for need in _requirements(name):
            version = installed_version(need.name)
            if canonicalize_name(need.name) not in together or version is None:
                continue
            if not need.specifier.contains(version, prereleases=True):
                yield (
                    f'{name} {installed_version(name)} needs {_shown(need)}, and {version} is '
                    f'installed: pip install "{_shown(need)}", or another {name}'
                )


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


def _requirements(name, extra=''):
    """Requirements of a distribution that hold here, [] of one that is not installed."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
    needs = [Requirement(line) for line in lines]
    return [need for need in needs if not need.marker or need.marker.evaluate({'extra': extra})]


def _shown(need):
    return f'{need.name}{need.specifier}'
