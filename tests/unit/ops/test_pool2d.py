"""The layer as an nn.Module; its options are tested through the neck, in test_models.py."""

import warnings

import pytest
import torch
from torch import nn

from gcp_mm.models import GlobalCovariancePooling
from gcp_mm.ops import GlobalCovariancePool2d


def test_shares_its_weights_with_the_neck():
    neck = GlobalCovariancePooling(8, (6, 4))
    layer = GlobalCovariancePool2d(8, (6, 4))
    layer.load_state_dict(neck.state_dict())
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(layer(x), neck(x), rtol=0, atol=0)


def test_block_makes_the_reductions():
    layer = GlobalCovariancePool2d(8, (6,), block=lambda i, o: nn.Conv2d(i, o, 3))
    assert layer.reduction[0].weight.shape == (6, 8, 3, 3)
    assert layer(torch.randn(1, 8, 5, 5)).shape == (1, 21)


def test_convolutions_start_as_hes():
    weight = GlobalCovariancePool2d(64, (512,)).reduction[0].conv.weight
    assert weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.05)
    assert weight.mean().item() == pytest.approx(0, abs=0.05 * (2 / 512) ** 0.5)


def test_one_position_is_warned_of_in_training():
    layer, x = GlobalCovariancePool2d(8, (6,)), torch.randn(3, 8, 1, 1, requires_grad=True)
    with pytest.warns(UserWarning, match="one position.*conv5='none'"):
        out = layer(x)
    assert not out.any()
    assert not torch.autograd.grad(out.sum(), x)[0].any()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        layer(torch.randn(3, 8, 1, 2))
        layer.eval()(x)


@pytest.mark.parametrize(
    ('shape', 'remedy'),
    [
        ((2, 8), "out_type='featmap'.*gap_before_final_norm=False"),
        ((2, 49, 8), "set class_tokens.*out_type='featmap'"),
        ((2, 6, 5, 5), 'set in_channels'),
        ((8,), 'set in_channels'),
    ],
)
def test_other_features_are_refused(shape, remedy):
    with pytest.raises(ValueError, match=f'B, 8, H, W.*{remedy}'):
        GlobalCovariancePool2d(8, (6,))(torch.ones(shape))


def test_a_map_has_no_class_token():
    layer = GlobalCovariancePool2d(8, (6,), class_tokens=1)
    with pytest.raises(ValueError, match=r"class_tokens=1.*\(2, 8, 5, 5\).*out_type='raw'"):
        layer(torch.ones(2, 8, 5, 5))
    layer.class_tokens = 0
    assert layer(torch.ones(2, 8, 5, 5)).shape == (2, 21)


@pytest.mark.parametrize(
    ('options', 'error', 'words'),
    [
        (dict(dropcov='no'), TypeError, "dropcov.*got 'no'"),
        (dict(dropcov=True, reduction=(1,)), ValueError, 'reduction.*at least 2.*dropcov'),
    ],
)
def test_wrong_options_of_dropcov(options, error, words):
    with pytest.raises(error, match=words):
        GlobalCovariancePool2d(8, **options)


def test_repr_shows_the_options():
    layer = GlobalCovariancePool2d(8, (), norm='power', exponent=0.3, class_tokens=2)
    assert "norm='power', exponent=0.3, class_tokens=2" in repr(layer)
