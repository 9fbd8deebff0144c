"""The output of a backbone as tokens."""

from torch import Tensor


def split_tokens(
    feats: Tensor | tuple[Tensor, ...], in_channels: int, class_tokens: int
) -> tuple[Tensor | None, Tensor]:
    """Take the last output of a backbone apart.

    Args:
        feats: (B, N, C) tokens or a (B, C, H, W) map, or a tuple whose last element is one.
        in_channels: C.
        class_tokens: number of leading tokens that are not positions; a map has none.

    Returns:
        The first of them, (B, C), or None; the positions, (B, N - class_tokens, C).

    Raises:
        ValueError: for another shape, or where no position is left.
    """
    x = feats[-1] if isinstance(feats, tuple | list) else feats
    if x.dim() == 4 and not class_tokens:
        x = x.flatten(2).transpose(1, 2)
    if x.dim() != 3 or x.shape[2] != in_channels or x.shape[1] <= class_tokens:
        wanted = f'(B, N, {in_channels}) tokens' + ('' if class_tokens else ' or a map of them')
        raise ValueError(
            f'features: expected {wanted}, more than class_tokens={class_tokens}, got '
            f"{tuple(x.shape)}; in MMPretrain set out_type='raw' of a vision transformer, "
            'gap_before_final_norm=False of a ConvNeXt, class_tokens=0 with the map of a Swin, '
            'in_channels to the channels of the tokens'
        )
    return (x[:, 0] if class_tokens else None), x[:, class_tokens:]
