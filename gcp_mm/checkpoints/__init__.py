"""Loading of pretrained weights."""

from .pretrained import check_checkpoint_file, load_pretrained

__all__ = ['check_checkpoint_file', 'load_pretrained']
