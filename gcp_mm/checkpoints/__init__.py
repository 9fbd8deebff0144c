"""Reading, proving and converting of weights."""

from .conversion import convert_checkpoint
from .in_mmengine import use_in_mmengine
from .place import checkpoint_place
from .pretrained import is_pretrained, load_pretrained
from .reading import check_checkpoint_file, read_checkpoint
from .whole import check_whole

__all__ = [
    'check_checkpoint_file',
    'check_whole',
    'checkpoint_place',
    'convert_checkpoint',
    'is_pretrained',
    'load_pretrained',
    'read_checkpoint',
    'use_in_mmengine',
]
