"""Smoothness of a network's loss, what training did and what networks cost.

The measures import torch alone; :mod:`.complexity` and :mod:`.curves` read mmengine's configs and
logs.
"""

from .landscape import measure_landscape

__all__ = ['measure_landscape']
