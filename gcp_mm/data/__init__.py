"""Loading of images with checks, and datasets made of scikit-learn's handwritten digits."""

from .intact_image import check_image_file, check_intact_image
from .load_image import LoadCheckedImage

__all__ = ['LoadCheckedImage', 'check_image_file', 'check_intact_image']
