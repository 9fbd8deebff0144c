"""Configs for people's own pictures: `tools/make_config.py`."""

from .write import TASKS, write_config

__all__ = ['TASKS', 'write_config']
