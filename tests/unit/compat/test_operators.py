"""mmcv's operators on torchvision: against their definitions, in NumPy, and finite differences."""

import sys
from importlib.util import find_spec

import mmcv
import mmcv.ops
import numpy as np
import pytest
import torch
import torchvision
from mmengine.utils.dl_utils.misc import mmcv_full_available
from torch.autograd import gradcheck
from torch.nn import functional as F  # noqa: N812

from gcp_mm.compat.operators import NAME, operators_in_use

F64 = torch.float64
IMAGE = torch.zeros(2, 1, 12, 12, dtype=F64)
ROIS = torch.tensor(
    [
        [0, 1.3, 2.1, 9.7, 8.2],
        [1, -3, -2, 4, 5.5],
        [1, 8, 7, 20, 15],
        [0, 4.2, 4.2, 4.3, 4.4],
        [0, 3, 3, 1, 1],  # without area
    ],
    dtype=F64,
)
stand_in = pytest.mark.skipif(
    operators_in_use() == 'compiled', reason='mmcv has compiled operators, which are not replaced'
)

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


def random(*shape, dtype=F64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def random_boxes(count, size=40, seed=0):
    """Boxes of (x1, y1, x2, y2), many of which overlap, and distinct scores."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator) * size
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    return boxes, torch.randperm(count, generator=generator) / count


def iou(a, b, offset=0):
    """Of two boxes, by their definition."""
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + offset for i in (0, 1)]
    common = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return common / (sum(areas) - common)


@stand_in
def test_it_is_in_place():
    assert operators_in_use() == f'torchvision {torchvision.__version__}'
    assert mmcv_full_available()
    assert find_spec(NAME).name == NAME
    assert f'torchvision {torchvision.__version__}' in mmcv.ops.get_compiler_version()


def test_compiled_operators_are_not_replaced(monkeypatch, tmp_path):
    (tmp_path / '_ext.py').touch()
    monkeypatch.delitem(sys.modules, NAME)
    monkeypatch.setattr(mmcv, '__path__', [str(tmp_path)])
    assert find_spec(NAME).origin == str(tmp_path / '_ext.py')
    assert operators_in_use() == 'compiled'


@stand_in
@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (lambda: mmcv.ops.nms_rotated(torch.rand(2, 5), torch.rand(2), 0.5), "'nms_rotated'"),
        (
            lambda: mmcv.ops.SoftmaxFocalLoss(2.0, 0.25)(torch.rand(2, 3), torch.tensor([0, 1])),
            "'softmax.*'",
        ),
        (lambda: mmcv.ops.roi_align(IMAGE, ROIS, 2, 1.0, 0, 'max'), "pool_mode='max'"),
    ],
)
def test_other_operators_raise(call, words):
    with pytest.raises(RuntimeError, match=f'{words} .*no equivalent|no equivalent.*{words}'):
        call()


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.1, 0.5])
def test_nms(threshold, offset):
    boxes, scores = random_boxes(60)
    kept = []
    for i in scores.argsort(descending=True).tolist():
        if all(iou(boxes[i], boxes[j], offset) <= threshold for j in kept):
            kept.append(i)
    dets, indices = mmcv.ops.nms(boxes, scores, threshold, offset)
    assert indices.tolist() == kept
    torch.testing.assert_close(dets, torch.cat([boxes, scores[:, None]], 1)[kept], rtol=0, atol=0)
    assert len(kept) < len(boxes)
    few = mmcv.ops.nms(boxes, scores, threshold, offset, score_threshold=0.5, max_num=5)[1]
    assert few.tolist() == [i for i in kept if scores[i] > 0.5][:5]


@stand_in
def test_nms_of_nothing_and_of_half_precision():
    empty = torch.zeros(0, 4)
    assert mmcv.ops.nms(empty, empty[:, 0], 0.5)[1].tolist() == []
    assert mmcv.ops.soft_nms(empty, empty[:, 0])[1].tolist() == []
    boxes, scores = (x.half() for x in random_boxes(60))
    expected = mmcv.ops.nms(boxes.float(), scores.float(), 0.3)[1]
    assert mmcv.ops.nms(boxes, scores, 0.3)[1].tolist() == expected.tolist()


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms(method, offset):
    boxes, scores = random_boxes(40)
    threshold, sigma, least = 0.3, 0.5, 0.05
    left = dict(enumerate(scores.double().tolist()))
    expected = []
    while left:
        best = max(left, key=left.get)
        expected.append((best, left.pop(best)))
        for i in list(left):
            overlap = iou(*boxes[[best, i]].double().tolist(), offset)
            if method == 'gaussian':
                left[i] *= np.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                left[i] *= 1 - overlap if method == 'linear' else 0
            if left[i] < least:
                del left[i]
    dets, indices = mmcv.ops.soft_nms(boxes, scores, threshold, sigma, least, method, offset)
    assert indices.tolist() == [i for i, _ in expected]
    torch.testing.assert_close(dets[:, :4], boxes[indices], rtol=0, atol=0)
    torch.testing.assert_close(dets[:, 4].double(), torch.tensor([s for _, s in expected]).double())
    assert len(expected) < len(boxes)


def test_nms_match():
    boxes, scores = random_boxes(60)
    groups = {}
    for i in scores.argsort(descending=True).tolist():
        group = next((k for k in groups if iou(boxes[k], boxes[i]) >= 0.3), None)
        groups.setdefault(i if group is None else group, []).append(i)
    found = mmcv.ops.nms_match(torch.cat([boxes, scores[:, None]], 1), 0.3)
    assert [group.tolist() for group in found] == list(groups.values())


@stand_in
def test_roi_align_where_algorithms_have_to_be_deterministic():
    x = random(2, 3, 11, 12).requires_grad_()
    arguments = x, ROIS, (2, 3), 0.8, 2, 'avg', True
    grad = random(len(ROIS), 3, 2, 3, seed=1)
    (expected,) = torch.autograd.grad(mmcv.ops.roi_align(*arguments), x, grad)
    torch.use_deterministic_algorithms(True)
    try:
        (found,) = torch.autograd.grad(mmcv.ops.roi_align(*arguments), x, grad)
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(found, expected)


def bilinear(plane, y, x):
    """Value at a point of a map that is zero outside."""
    value = 0
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
                value += (1 - abs(y - row)) * (1 - abs(x - column)) * plane[row, column]
    return value


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align(sampling_ratio, aligned):
    """Average of bilinear samples at the centers of a 2x2 grid in each bin, 1.5 by 1.25 large."""
    x, scale = random(1, 2, 9, 9).requires_grad_(), 0.5
    y1, x1, bin_height, bin_width = 1.2, 2.4, 1.5, 1.25
    roi = torch.tensor([[0, x1, y1, x1 + 3 * bin_width, y1 + 2 * bin_height]], dtype=F64)
    roi[:, 1:] /= scale
    shift = 0.5 if aligned else 0
    expected = np.zeros((2, 2, 3))
    for c, i, j, a, b in np.ndindex(2, 2, 3, 2, 2):
        y, z = y1 + (i + 0.25 + a / 2) * bin_height, x1 + (j + 0.25 + b / 2) * bin_width
        expected[c, i, j] += bilinear(x[0, c].detach().numpy(), y - shift, z - shift) / 4

    def pool(x):
        return mmcv.ops.roi_align(x, roi, (2, 3), scale, sampling_ratio, 'avg', aligned)

    np.testing.assert_allclose(pool(x)[0].detach(), expected)
    assert gradcheck(pool, x)


@stand_in
@pytest.mark.parametrize('scale', [1.0, 0.7])
def test_roi_pool(scale):
    x = random(2, 3, 8, 9).requires_grad_()
    out = mmcv.ops.roi_pool(x, ROIS, (2, 3), scale)
    for roi, pooled in zip(ROIS.numpy(), out.detach(), strict=True):
        corners = np.concatenate([roi[1:3], roi[3:] + 1]).astype(np.float32) * np.float32(scale)
        for i in range(2):
            for j in range(3):
                rows, columns = (
                    slice(
                        max(int(np.floor(low + k * (high - low) / bins)), 0),
                        max(int(np.ceil(low + (k + 1) * (high - low) / bins)), 0),
                    )
                    for k, bins, low, high in (
                        (i, 2, corners[1], corners[3]),
                        (j, 3, corners[0], corners[2]),
                    )
                )
                part = x[int(roi[0]), :, rows, columns].detach()
                empty = not part[0].numel() or (corners[2:] <= corners[:2]).any()
                expected = torch.zeros(3) if empty else part.flatten(1).amax(1)
                torch.testing.assert_close(pooled[:, i, j], expected.to(F64), rtol=0, atol=0)
    one = x.detach()[:, :1].requires_grad_()  # channel
    assert gradcheck(lambda x: mmcv.ops.roi_pool(x, ROIS, (2, 3), scale), one)


def conv_by_definition(x, offset, weight, mask, stride, padding, dilation):
    """Deformable convolution of one image with one group: y offsets before x offsets."""
    height, width = offset.shape[1:]
    out = np.zeros((len(weight), height, width))
    for i, j in np.ndindex(height, width):
        for tap, (a, b) in enumerate(np.ndindex(*weight.shape[2:])):
            y = i * stride[0] - padding[0] + a * dilation[0] + offset[2 * tap, i, j]
            z = j * stride[1] - padding[1] + b * dilation[1] + offset[2 * tap + 1, i, j]
            sample = np.array([bilinear(plane, y, z) for plane in x]) * mask[tap, i, j]
            out[:, i, j] += weight[:, :, a, b] @ sample
    return out


GEOMETRY = (2, 1), (1, 2), (1, 2)  # stride, padding, dilation


@pytest.mark.parametrize('modulated', [False, True])
def test_deform_conv(modulated):
    x, weight = random(1, 2, 6, 7), random(3, 2, 3, 2, seed=1)
    offset, mask = random(1, 12, 3, 9, seed=2), random(1, 6, 3, 9, seed=3)
    bias = random(3, seed=4)
    inputs = [t.float() for t in (x, offset, weight, mask, bias)]
    if modulated:
        out = mmcv.ops.modulated_deform_conv2d(
            *(inputs[i] for i in (0, 1, 3, 2, 4)), *GEOMETRY, 1, 1
        )
    else:
        mask, bias = torch.ones_like(mask), torch.zeros_like(bias)
        out = mmcv.ops.deform_conv2d(*inputs[:3], *GEOMETRY, 1, 1)
    expected = conv_by_definition(
        *(t.numpy() for t in (x[0], offset[0], weight, mask[0])), *GEOMETRY
    )
    expected += bias.numpy()[:, None, None]
    np.testing.assert_allclose(out[0], expected, rtol=1e-4, atol=1e-5)


@stand_in
def test_gradients_of_deform_conv():
    inputs = random(1, 4, 2, 3), random(1, 16, 2, 3, seed=1), random(4, 2, 2, 2, seed=2)
    mask, bias = random(1, 8, 2, 3, seed=3), random(4, seed=4)
    geometry = 1, 1, 2, 2, 2  # two groups of channels, two of offsets
    x, offset, weight, mask, bias = (t.requires_grad_() for t in (*inputs, mask, bias))
    assert gradcheck(lambda *t: mmcv.ops.deform_conv2d(*t, *geometry), (x, offset, weight))
    assert gradcheck(
        lambda *t: mmcv.ops.modulated_deform_conv2d(*t, *geometry), (x, offset, mask, weight, bias)
    )
    assert gradcheck(
        lambda *t: mmcv.ops.modulated_deform_conv2d(*t, None, *geometry), (x, offset, mask, weight)
    )


@pytest.mark.parametrize('groups', [1, 2])
def test_deform_conv_without_offsets_is_a_convolution(groups):
    layer = mmcv.ops.ModulatedDeformConv2dPack(4, 6, 3, padding=1, groups=groups, deform_groups=2)
    x = random(2, 4, 5, 5, dtype=torch.float32)
    # Its offsets start at zero, its mask at sigmoid(0).
    expected = F.conv2d(x, layer.weight, padding=1, groups=groups) / 2 + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x), expected)


@stand_in
@pytest.mark.parametrize('weighted', [False, True])
def test_sigmoid_focal_loss(weighted):
    x = (10 * random(5, 3)).requires_grad_()
    target = torch.tensor([0, 2, 1, 2, 0])
    weight = torch.tensor([0.5, 2, 3], dtype=F64) if weighted else None
    one_hot = F.one_hot(target, 3).to(F64)
    expected = torchvision.ops.sigmoid_focal_loss(x, one_hot, 0.3, 1.5)
    expected = expected * (weight[target][:, None] if weighted else 1)
    out = mmcv.ops.sigmoid_focal_loss(x, target, 1.5, 0.3, weight, 'none')
    torch.testing.assert_close(out, expected)
    # With a gradient that is not the same for all: mmcv multiplies by it.
    grad = random(*out.shape, seed=1)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, grad)[0] for y in (out, expected)))
    for reduction in ('sum', 'mean'):
        assert gradcheck(
            lambda x, reduction=reduction: mmcv.ops.sigmoid_focal_loss(
                x, target, 1.5, 0.3, weight, reduction
            ),
            x,
        )


@stand_in
def test_focal_loss_of_background_and_of_certain_scores():
    target = torch.tensor([3, 3])  # of three classes
    x = torch.tensor([[0.1, -0.2, 0.3], [200, -200, 0]], requires_grad=True)
    out = mmcv.ops.sigmoid_focal_loss(x, target, 2.0, 0.25, None, 'none')
    expected = torchvision.ops.sigmoid_focal_loss(x[0], torch.zeros(3), 0.25, 2.0)
    torch.testing.assert_close(out[0], expected)
    assert torch.isfinite(out).all()
    assert torch.isfinite(torch.autograd.grad(out.sum(), x)[0]).all()


@stand_in
def test_multi_scale_deformable_attention():
    shapes = torch.tensor([[3, 4], [2, 2]])
    value = random(2, 16, 2, 3).requires_grad_()
    locations = torch.rand(2, 5, 2, 2, 3, 2, dtype=F64).requires_grad_()
    weights = random(2, 5, 2, 2, 3, seed=1).requires_grad_()
    starts = torch.tensor([0, 12])

    def attend(value, locations, weights):
        function = mmcv.ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction
        return function.apply(value, shapes, starts, locations, weights, 64)

    out = attend(value, locations, weights).detach().view(2, 5, 2, 3)
    expected = torch.zeros_like(out)
    for image, query, head, level, point in np.ndindex(2, 5, 2, 2, 3):
        height, width = shapes[level].tolist()
        maps = value[image, starts[level] :, head][: height * width].detach()
        x, y = (locations[image, query, head, level, point] * shapes[level].flip(0) - 0.5).tolist()
        for channel in range(3):
            plane = maps[:, channel].view(height, width).numpy()
            weight = weights[image, query, head, level, point].item()
            expected[image, query, head, channel] += weight * bilinear(plane, y, x)
    torch.testing.assert_close(out, expected)
    assert gradcheck(attend, (value, locations, weights))


@stand_in
@pytest.mark.parametrize(
    ('device', 'dtype'),
    [
        ('cpu', torch.bfloat16),
        *(pytest.param('cuda', dtype, marks=gpu) for dtype in (torch.float16, torch.bfloat16)),
    ],
)
def test_half_precision_is_computed_in_float32(device, dtype):
    """As under autocast: features and boxes of half precision, and gradients of it."""
    x = random(2, 4, 8, 8, dtype=torch.float32).to(device, dtype).requires_grad_()
    rois = ROIS.to(device, dtype)
    layer = mmcv.ops.DeformConv2dPack(4, 4, 3, padding=1).to(device)
    target = torch.tensor([0, 3, 2], device=device)

    def attend(x):
        shapes, starts = torch.tensor([[8, 8]], device=device), torch.tensor([0], device=device)
        value = x.flatten(2).mT[:, :, None]
        points = torch.full((2, 3, 1, 1, 2, 2), 0.4, device=device)
        weights = torch.ones(points.shape[:-1], device=device)
        function = mmcv.ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction
        return function.apply(value, shapes, starts, points, weights, 64)

    for operator in (
        lambda x: mmcv.ops.roi_align(x, rois.to(x.dtype), (2, 2), 1.0, 2),
        lambda x: mmcv.ops.roi_pool(x, rois.to(x.dtype), (2, 2), 1.0),
        lambda x: mmcv.ops.sigmoid_focal_loss(x[:, :, 0, 0].repeat(2, 1)[:3], target),
        layer,
        attend,
    ):
        with torch.autocast(device, dtype):
            out = operator(x)
            (grad,) = torch.autograd.grad(out.float().square().sum(), x)
        assert out.dtype == grad.dtype == dtype
        single = x.detach().float().requires_grad_()
        expected = operator(single)
        (expected_grad,) = torch.autograd.grad(expected.square().sum(), single)
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(out.float(), expected, rtol=2 * eps, atol=eps)
        assert (grad.float() - expected_grad).norm() <= 4 * eps * expected_grad.norm()
