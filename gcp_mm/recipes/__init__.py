"""Write configs for your own images, as `tools/make_config.py` does."""

from .write import TASKS, write_config

__all__ = ['TASKS', 'write_config']
