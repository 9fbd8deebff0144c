"""Small data sets made from the 1,797 handwritten digits that scikit-learn ships."""

from .digit_scenes import write_scenes
from .digits import write_classification

__all__ = ['write_classification', 'write_scenes']
