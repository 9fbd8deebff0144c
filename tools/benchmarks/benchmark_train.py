"""Time and memory of a training step of networks, and time of an inference step.

The two time columns of the paper's Table 9, as ratios taken in one process: ResNets with GAP, with
and without down-sampling in conv5, with this project's covariance pooling, and with the textbook
layer in its place. Random images; everything else is what a training run does in a step: data
preprocessor, loss, backward, SGD. All tables of a GPU come from one run::

    python tools/benchmarks/benchmark_train.py --device cuda --depth 18 50 101 \\
        --batch 32 128 256 --precision fp32 tf32 bf16
"""

import argparse
from itertools import product
from pathlib import Path

import torch
from isqrt_cov import isqrt_cov
from measure import describe_machine, interleave, network_steps, write_report
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmpretrain.registry import MODELS as CLASSIFIERS
from tqdm import tqdm

import gcp_mm
from gcp_mm.hub import resolve_config
from gcp_mm.ops import global_covariance_pooling

ROOT = Path(__file__).resolve().parents[2]
GAP_NO_DS = 'GAP, no down-sampling'
NETWORKS = ('GAP', GAP_NO_DS, 'GCP', 'GCP, textbook layer')
LAYER = 'covariance, square root and vector alone'


@MODELS.register_module()
class TextbookPooling(gcp_mm.models.GlobalCovariancePooling):
    """The neck with the published layer behind its reduction."""

    def forward(self, inputs):
        return tuple(isqrt_cov(self.reduction(x).flatten(2)) for x in inputs)


def build(name, depth):
    """A network with its optimizer, ready to train."""
    config = resolve_config(ROOT / 'configs/imagenet/resnet50-gcp_8xb32-lradju_in1k.py')
    channels = 512 if depth < 50 else 2048
    model = config.model
    model.backbone.depth = depth
    model.neck.in_channels = channels
    if name.startswith('GAP'):
        model.backbone.conv5 = 'stride' if name == 'GAP' else 'none'
        model.neck = dict(type='GlobalAveragePooling')
        model.head.in_channels = channels
    elif name == 'GCP, textbook layer':
        model.neck.type = 'TextbookPooling'
    network = CLASSIFIERS.build(model)
    network.init_weights()
    return network, build_optim_wrapper(network, config.optim_wrapper)


def steps_of(pooling, depth, batch, precision, args):
    """A training and an inference step of a network, functions without arguments."""
    network, optimizer = build(pooling, depth)
    network.to(args.device)
    steps = network_steps(network, optimizer, batch, args.size)
    if precision == 'bf16':  # entered in each step: the cast weights are kept until it is left
        autocast = torch.autocast(args.device.type, torch.bfloat16)
        steps = tuple(map(autocast, steps))
    return steps


def peak_memory(pooling, depth, batch, precision, args):
    """GiB that a GPU holds at most in a training step of one network alone."""
    if args.device.type != 'cuda':
        return None
    step, _ = steps_of(pooling, depth, batch, precision, args)
    step()  # makes the gradients and the optimizer's state
    torch.cuda.reset_peak_memory_stats(args.device)
    step()
    return torch.cuda.max_memory_allocated(args.device) / 2**30


def measure(depth, batch, precision, args):
    """A row for each network of a depth, batch size and precision."""
    for products in (torch.backends.cuda.matmul, torch.backends.cudnn):
        products.allow_tf32 = precision == 'tf32'
    settings = (depth, batch, precision, args)
    memory = {name: peak_memory(name, *settings) for name in NETWORKS}
    train, test = {}, {}
    for name in NETWORKS:
        train[name], test[name] = steps_of(name, *settings)

    side = -(-args.size // 16)
    features = torch.randn(batch, 256, side, side, device=args.device).relu_()
    grad = torch.randn(batch, 32896, device=args.device)

    def pool():
        x = features.detach().requires_grad_()
        torch.autograd.grad(global_covariance_pooling(x), x, grad)

    train[LAYER], test[LAYER] = pool, lambda: global_covariance_pooling(features)
    seconds = interleave(train, args.repeats, args.device)
    seconds_test = interleave(test, args.repeats, args.device)
    return [
        {
            'network': f'ResNet-{depth}, {name}',
            'precision': precision,
            'batch': batch,
            'training ms/image': seconds[name] / batch * 1e3,
            'images/s': batch / seconds[name],
            'ratio to GAP of the same backbone': seconds[name] / seconds[GAP_NO_DS],
            'share of the GCP step': seconds[name] / seconds['GCP'],
            'peak GiB': memory.get(name),
            'inference ms/image': seconds_test[name] / batch * 1e3,
            'inference ratio': seconds_test[name] / seconds_test[GAP_NO_DS],
        }
        for name in seconds
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--depth', type=int, nargs='+', choices=(18, 34, 50, 101), default=[50])
    add('--batch', type=int, nargs='+', default=[32], help='images of a step')
    add('--precision', nargs='+', choices=('fp32', 'tf32', 'bf16'), default=['fp32'])
    add('--size', type=int, default=224, help='of the images, pixels')
    add('--device', type=torch.device, default=torch.device('cpu'))
    add('--repeats', type=int, default=5, help='turns of each network')
    add('--out', type=Path, default='work_dirs/benchmarks/train', help='folder')
    args = parser.parse_args()
    if 'tf32' in args.precision and args.device.type != 'cuda':
        parser.error('--precision tf32: a GPU computes in it, and --device is none')
    torch.manual_seed(0)
    rows = []
    machine = describe_machine(args.device) | dict(image=args.size)
    for settings in tqdm([*product(args.depth, args.batch, args.precision)]):
        rows += measure(*settings, args)
    write_report(args.out, 'train', machine, rows)


if __name__ == '__main__':
    main()
