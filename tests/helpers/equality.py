"""Comparison of nested states, bit for bit."""

import torch


def assert_equal(a, b, where=''):
    """Bit for bit, through dicts and sequences."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f'{where}.{key}')
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_equal(*pair, f'{where}.{i}')
    else:
        assert a == b, where


def load(work_dir, rank=0):
    return torch.load(work_dir / f'state{rank}.pth', weights_only=False)
