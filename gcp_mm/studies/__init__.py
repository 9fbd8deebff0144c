"""Study a network: loss landscape, curvature, gradients, features and costs."""

from .kfac_optim_wrapper import KFACOptimWrapper
from .landscape import measure_landscape
from .landscape_hook import LandscapeHook

__all__ = ['KFACOptimWrapper', 'LandscapeHook', 'measure_landscape']
