"""Whether the installed packages are of versions that go together, as their metadata have it.

pip says so while it installs, in one line among many, and never again.
"""

from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .families import FAMILIES

# What the families are compiled against, or pass arrays to: another version fails at its import or
# in the middle of a run.
SHARED = ('torch', 'torchvision', 'numpy', 'opencv-python', 'opencv-python-headless')


def installed_family() -> str:
    """Name of the family that is installed, of which there is one once gcp_mm is imported."""
    return next(
        family
        for family, names in FAMILIES.items()
        if any(_version(name) is not None for name in names)
    )


def requirement_of(name: str) -> str:
    """What gcp_mm requires of a package of the installed family, such as 'mmcv<2.2,>=2.1'.

    Args:
        name: of the distribution.
    """
    family = installed_family()
    named = [need for need in _requirements('gcp_mm', family) if need.name == name]
    return _shown(named[0]) if named else name


def unmet_requirements(optional: tuple[str, ...] = ()) -> Iterator[str]:
    """In words, each installed version outside the range another package names, with a remedy.

    Looked at are the ranges of gcp_mm (its `setup.py`) for the family that is installed, and those
    that PyTorch, torchvision, numpy, OpenCV and the family name of one another.

    Args:
        optional: distributions that may be absent.
    """
    family = installed_family()
    for need in _requirements('gcp_mm', family):
        version = _version(need.name)
        if version is None and need.name not in optional:
            yield f'{need.name} is not installed: pip install "{_shown(need)}"'
        elif version is not None and not need.specifier.contains(version, prereleases=True):
            yield (
                f'{need.name} {version} is outside the range that gcp_mm is tested with: '
                f'pip install "{_shown(need)}"'
            )
    together = {canonicalize_name(name) for name in (*SHARED, *FAMILIES[family])}
    for name in sorted(together):
        for need in _requirements(name):
            version = _version(need.name)
            if canonicalize_name(need.name) not in together or version is None:
                continue
            if not need.specifier.contains(version, prereleases=True):
                yield (
                    f'{name} {_version(name)} needs {_shown(need)}, and {version} is installed: '
                    f'pip install "{_shown(need)}", or another {name}'
                )


def versions() -> str:
    """Versions of the packages that matter most, in one line."""
    names = ('gcp_mm', 'torch', 'torchvision', *FAMILIES[installed_family()])
    return ', '.join(f'{name} {_version(name)}' for name in names if _version(name) is not None)


def _requirements(name, extra=''):
    """Requirements of a distribution that hold here, [] of one that is not installed."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
    needs = [Requirement(line) for line in lines]
    return [need for need in needs if not need.marker or need.marker.evaluate({'extra': extra})]


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _shown(need):
    return f'{need.name}{need.specifier}'
