"""Loading of pretrained weights."""

from .pretrained import check_checkpoint_file, is_pretrained, load_pretrained

__all__ = ['check_checkpoint_file', 'is_pretrained', 'load_pretrained']
