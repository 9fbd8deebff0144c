"""What a backbone gives, as tokens."""

from torch import Tensor


def split_tokens(
    feats: Tensor | tuple[Tensor, ...], in_channels: int, class_tokens: int
) -> tuple[Tensor | None, Tensor]:
    """Take the last output of a backbone apart.

    Args:
        feats: (B, N, C) tokens or a (B, C, H, W) map, or a tuple whose last element is one.
        in_channels: C.
        class_tokens: tokens in front that are no positions; a map has none.

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
            f'feats: expected {wanted} with positions behind class_tokens={class_tokens}, got '
            f"{tuple(x.shape)}; in MMPretrain, set the backbone's out_type='raw'"
        )
    return (x[:, 0] if class_tokens else None), x[:, class_tokens:]
