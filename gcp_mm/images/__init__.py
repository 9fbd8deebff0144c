"""Image files: whether they are whole, and their loading in a pipeline."""

from .load_image import GCPLoadImage
from .whole_image import check_image_file, check_whole_image

__all__ = ['GCPLoadImage', 'check_image_file', 'check_whole_image']
