"""Loading of images with checks, and datasets made of scikit-learn's handwritten digits."""

from .intact_image import IMAGE_SUFFIXES, check_image_file, check_intact_image, count_suffixes
from .load_image import LoadCheckedImage

__all__ = [
    'IMAGE_SUFFIXES',
    'LoadCheckedImage',
    'check_image_file',
    'check_intact_image',
    'count_suffixes',
]
