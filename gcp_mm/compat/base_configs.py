"""Configs that inherit this package's: ``_base_ = 'gcp_mm::imagenet/resnet50-gcp_....py'``."""

import functools
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config


def find_base_configs(package: str, folder: Path) -> None:
    """Let ``_base_`` name the configs of a package that mmengine does not know.

    mmengine has a fixed list of packages, and would give what it inherits the package's name as a
    scope. The modules of this one are in the root registries, which have none: so a method of
    `Config` is wrapped here.

    The configs of other packages are looked for in their folder first. mmengine parses the
    metafiles of all their models before it does so, which takes 0.2 s for every ``_base_``.

    Args:
        package: what the names begin with, before '::'.
        folder: that holds its configs.
    """
    wrapped = Config._get_cfg_path

    @functools.wraps(wrapped)
    def get_cfg_path(cfg_path, filename):
        scope, separator, name = cfg_path.partition('::')
        if scope != package:
            spec = find_spec(scope) if separator and '.' not in scope else None
            if spec and spec.origin:
                path = Path(spec.origin).parent / '.mim/configs' / name
                if path.is_file():
                    return str(path), scope
            return wrapped(cfg_path, filename)
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f'config: {filename!r} inherits {cfg_path!r}: no such file')
        return str(path), None

    Config._get_cfg_path = staticmethod(get_cfg_path)
