"""Configs that inherit this package's: ``_base_ = 'gcp_mm::imagenet/resnet50-gcp_....py'``."""

import functools
from pathlib import Path

from mmengine.config import Config


def find_base_configs(package: str, folder: Path) -> None:
    """Let ``_base_`` name the configs of a package that mmengine does not know.

    mmengine has a fixed list of packages, and would give what it inherits the package's name as a
    scope. The modules of this one are in the root registries, which have none: so a method of
    `Config` is wrapped here.

    Args:
        package: what the names begin with, before '::'.
        folder: that holds its configs.
    """
    wrapped = Config._get_cfg_path

    @functools.wraps(wrapped)
    def get_cfg_path(cfg_path, filename):
        if not cfg_path.startswith(f'{package}::'):
            return wrapped(cfg_path, filename)
        path = folder / cfg_path.removeprefix(f'{package}::')
        if not path.is_file():
            raise FileNotFoundError(f'config: {filename!r} inherits {cfg_path!r}: no such file')
        return str(path), None

    Config._get_cfg_path = staticmethod(get_cfg_path)
