"""Time of a training and an inference step of networks: benchmark_train.py --depth 50.

The two time columns of the paper's Table 9, as ratios taken in one process: ResNets with GAP, with
and without down-sampling in conv5, with this project's covariance pooling, and with the textbook
layer in its place. Random images; everything else is what a training run does in a step: data
preprocessor, loss, backward, SGD.
"""

import argparse
from pathlib import Path

import torch
from isqrt_cov import isqrt_cov
from measure import describe_machine, interleave, network_steps, write_report
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmpretrain.registry import MODELS as CLASSIFIERS

import gcp_mm
from gcp_mm.hub import resolve_config
from gcp_mm.ops import global_covariance_pooling

ROOT = Path(__file__).resolve().parents[2]
GAP_NO_DS = 'GAP, no down-sampling'


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--depth', type=int, choices=(18, 34, 50, 101), default=50)
    parser.add_argument('--batch', type=int, default=32)
    parser.add_argument('--size', type=int, default=224, help='of the images, pixels')
    parser.add_argument('--device', type=torch.device, default=torch.device('cpu'))
    parser.add_argument('--repeats', type=int, default=5, help='turns of each network')
    parser.add_argument('--out', type=Path, default='work_dirs/benchmarks/train', help='folder')
    args = parser.parse_args()
    torch.manual_seed(0)

    train, test = {}, {}
    for name in ('GAP', GAP_NO_DS, 'GCP', 'GCP, textbook layer'):
        network, optimizer = build(name, args.depth)
        network.to(args.device)
        train[name], test[name] = network_steps(network, optimizer, args.batch, args.size)

    side = -(-args.size // 16)
    features = torch.randn(args.batch, 256, side, side, device=args.device).relu_()
    grad = torch.randn(args.batch, 32896, device=args.device)

    def pool():
        x = features.detach().requires_grad_()
        torch.autograd.grad(global_covariance_pooling(x), x, grad)

    alone = 'covariance, square root and vector alone'
    seconds = interleave(train | {alone: pool}, args.repeats, args.device)
    seconds_test = interleave(
        test | {alone: lambda: global_covariance_pooling(features)}, args.repeats, args.device
    )
    rows = [
        {
            'network': f'ResNet-{args.depth}, {name}' if name != alone else name,
            'training ms/image': seconds[name] / args.batch * 1e3,
            'ratio to GAP of the same backbone': seconds[name] / seconds[GAP_NO_DS],
            'share of the GCP step': seconds[name] / seconds['GCP'],
            'inference ms/image': seconds_test[name] / args.batch * 1e3,
            'inference ratio': seconds_test[name] / seconds_test[GAP_NO_DS],
        }
        for name in seconds
    ]
    machine = describe_machine(args.device) | dict(batch=args.batch, image=args.size)
    write_report(args.out, f'train_r{args.depth}', machine, rows)


if __name__ == '__main__':
    main()
