"""Load and check images; datasets made from scikit-learn's handwritten digits."""

from .intact_image import IMAGE_SUFFIXES, check_image_file, check_intact_image, count_suffixes
from .load_image import LoadCheckedImage
from .preprocessing import Preprocessing, describe_preprocessing, image_size, sizes_of

__all__ = [
    'IMAGE_SUFFIXES',
    'LoadCheckedImage',
    'Preprocessing',
    'check_image_file',
    'check_intact_image',
    'count_suffixes',
    'describe_preprocessing',
    'image_size',
    'sizes_of',
]
