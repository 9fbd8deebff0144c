"""Study a network: loss landscape, curvature, gradients, features and costs."""

from .kfac import KFACOptimWrapper
from .landscape import LandscapeHook, measure_landscape

__all__ = ['KFACOptimWrapper', 'LandscapeHook', 'measure_landscape']
