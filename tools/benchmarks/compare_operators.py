"""Compare mmcv's compiled operators with those that torchvision computes in their place.

    python tools/benchmarks/compare_operators.py [--device cuda]

It needs an mmcv with compiled operators, and prints a Markdown table: for each operator the largest
difference of the results over the largest value, and the ratio of the times, measured in turns.
Operators that mmcv has not compiled for the device are left out.
"""

import argparse
import sys
from functools import partial
from importlib import import_module

import torch
import torchvision
from measure import interleave
from tqdm import tqdm

from gcp_mm._io import markdown_table
from gcp_mm.compat import operators_in_use


def boxes(count, generator):
    """Boxes in an image of 800 by 800, (count, 4), and distinct scores."""
    center = torch.rand(count, 2, generator=generator) * 800
    half = torch.rand(count, 2, generator=generator) * 100 + 4
    scores = torch.randperm(count, generator=generator) / count
    return torch.cat([center - half, center + half], 1), scores


def cases(device):
    """Calls of mmcv.ops by name, each with its arguments; tensors that require grad get one."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator).to(device).requires_grad_()

    corners, scores = (x.to(device) for x in boxes(1000, generator))
    rois = torch.cat([torch.arange(512, device=device)[:, None] % 2, corners[:512]], 1)
    features = random(2, 64, 50, 50)
    offset, mask = random(2, 36, 50, 50), random(2, 18, 50, 50)
    weight, bias = random(64, 64, 3, 3), random(64)
    target = torch.randint(81, (4000,), generator=generator).to(device)
    shapes = torch.tensor([[50, 50], [25, 25]], device=device)
    starts = torch.tensor([0, 2500], device=device)
    values = random(2, 3125, 4, 16)
    points = torch.rand(2, 300, 4, 2, 4, 2, generator=generator).to(device).requires_grad_()
    attention = random(2, 300, 4, 2, 4)
    dets = torch.cat([corners, scores[:, None]], 1)
    return {
        'nms': (corners, scores, 0.5),
        'nms (offset=1)': (corners, scores, 0.5, 1),
        'soft_nms (linear)': (corners, scores, 0.3),
        'soft_nms (gaussian)': (corners, scores, 0.3, 0.5, 1e-3, 'gaussian'),
        'nms_match': (dets, 0.5),
        'roi_align (aligned)': (features, rois, (7, 7), 1 / 16, 0, 'avg', True),
        'roi_align (2x2 samples)': (features, rois, (7, 7), 1 / 16, 2, 'avg', False),
        'roi_pool': (features, rois, (7, 7), 1 / 16),
        'deform_conv2d': (features, offset, weight, 1, 1, 1, 1, 2),
        'modulated_deform_conv2d': (features, offset, mask, weight, bias, 1, 1, 1, 1, 2),
        'sigmoid_focal_loss': (random(4000, 80), target, 2.0, 0.25, None, 'none'),
        'ms_deform_attn': (values, shapes, starts, points, attention, 64),
    }


def run(name, arguments):
    """Results of an operator and its gradients, all as one list of tensors."""
    ops = import_module('mmcv.ops')
    name = name.split(' ')[0]
    if name == 'ms_deform_attn':
        operator = ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply
    else:
        operator = getattr(ops, name)
    out = operator(*arguments)
    if name == 'nms_match':
        return [torch.cat([torch.tensor([len(group)]), group.cpu()]) for group in out]
    results = list(out) if isinstance(out, tuple) else [out]
    inputs = [x for x in arguments if isinstance(x, torch.Tensor) and x.requires_grad]
    if inputs:
        generator = torch.Generator().manual_seed(1)
        grad = torch.randn(out.shape, generator=generator).to(out.device)
        results += torch.autograd.grad(out, inputs, grad)
    return [x.detach() for x in results]


def use(module):
    """Have all of mmcv.ops call the operators of a module."""
    for name, submodule in list(sys.modules.items()):
        if name.startswith('mmcv.ops.') and hasattr(submodule, 'ext_module'):
            submodule.ext_module = module


def difference(results, others):
    """Largest difference over the largest value; infinite where the shapes differ."""
    if [x.shape for x in results] != [x.shape for x in others]:
        return float('inf')
    return max(
        float((a.double() - b.double()).abs().max() / a.double().abs().max().clamp_min(1e-30))
        for a, b in zip(results, others, strict=True)
        if a.numel()
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--repeats', type=int, default=7, help='timed calls of each')
    args = parser.parse_args()
    device = torch.device(args.device)
    if operators_in_use() != 'compiled':
        raise SystemExit('the installed mmcv has no compiled operators to compare with')
    compiled = import_module('mmcv._ext')
    stand_in = import_module('gcp_mm.compat.mmcv_ext')
    import_module('mmcv.ops')
    rows = []
    for name, arguments in tqdm(cases(device).items()):

        def step(module, name=name, arguments=arguments):
            use(module)
            return run(name, arguments)

        try:
            expected, found = step(compiled), step(stand_in)
        except RuntimeError as error:
            if 'implementation for device' not in str(error):
                raise
            rows.append((name, f'not in mmcv for {device}', ''))
            continue
        steps = {module: partial(step, module) for module in (compiled, stand_in)}
        seconds = interleave(steps, args.repeats, device)
        ratio = seconds[stand_in] / seconds[compiled]
        rows.append((name, f'{difference(expected, found):.1e}', f'{ratio:.2f}'))
    print(
        f'mmcv {import_module("mmcv").__version__} with compiled operators beside torchvision '
        f'{torchvision.__version__}, PyTorch {torch.__version__}, {device}, '
        f'{torch.get_num_threads()} threads\n'
    )
    columns = 'operator, with its gradients', 'largest difference', 'time, times the compiled'
    print(markdown_table(columns, rows))


if __name__ == '__main__':
    main()
