"""Load and check images; datasets made from scikit-learn's handwritten digits."""

from .load_image import IMAGE_SUFFIXES, LoadCheckedImage, check_intact_image, count_suffixes
from .preprocessing import Preprocessing, describe_preprocessing, image_size, sizes_of

__all__ = [
    'IMAGE_SUFFIXES',
    'LoadCheckedImage',
    'Preprocessing',
    'check_intact_image',
    'count_suffixes',
    'describe_preprocessing',
    'image_size',
    'sizes_of',
]
