"""Read, verify and convert checkpoints."""

from .conversion import convert_checkpoint
from .in_mmengine import install_safe_readers
from .location import checkpoint_location, checkpoint_number, numbered_checkpoints
from .pretrained import is_pretrained, load_pretrained
from .reading import check_checkpoint_file, check_intact, read_checkpoint

__all__ = [
    'check_checkpoint_file',
    'check_intact',
    'checkpoint_location',
    'checkpoint_number',
    'convert_checkpoint',
    'install_safe_readers',
    'is_pretrained',
    'load_pretrained',
    'numbered_checkpoints',
    'read_checkpoint',
]
