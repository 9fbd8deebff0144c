"""MMPretrain's window attention, of Swin and its kind, for exporters.

`ShiftWindowMSA.window_reverse` computes the number of images as a Python number. A trace keeps that
number as a constant, so that its logits are wrong for any other batch, and torch.export refuses a
batch of any size.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


@contextmanager
def windows_of_any_batch() -> Iterator[None]:
    """Within the block, windows are put together without the number of images."""
    from mmpretrain.models.utils import ShiftWindowMSA

    original = vars(ShiftWindowMSA)['window_reverse']
    ShiftWindowMSA.window_reverse = staticmethod(_window_reverse)
    try:
        yield
    finally:
        ShiftWindowMSA.window_reverse = original


def _window_reverse(windows: Tensor, H: int, W: int, window_size: int) -> Tensor:  # noqa: N803
    """(B windows, window_size, window_size, C) to (B, H, W, C), as MMPretrain does."""
    rows, columns, channels = H // window_size, W // window_size, windows.shape[-1]
    x = windows.reshape(-1, rows, columns, window_size, window_size, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, H, W, channels)
