"""The networks of the paper as their authors build them: torchvision's, with their layer in it.

Written from the layer's definition and the names in the released files, for the tests of what
becomes of those files; the layer is a plain iteration in float64.
"""

import functools

import torch
import torchvision
from torch import nn

RESNETS = (18, 34, 50, 101)
NETWORKS = (*(f'resnet{depth}' for depth in RESNETS), 'mobilenet_v2', 'shufflenet_v2')


def covariance_root(x, iterations=5):
    """Upper triangles of the iterates' root of each map's covariance, (B, D(D+1)/2)."""
    x = x.double().flatten(2)
    n, d = x.shape[2], x.shape[1]
    centering = (torch.eye(n).double() - 1 / n) / n
    cov = x @ centering @ x.mT
    trace = cov.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    y, z, eye = cov / trace, torch.eye(d).double(), torch.eye(d).double()
    for _ in range(iterations):
        t = (3 * eye - z @ y) / 2
        y, z = y @ t, t @ z
    rows, columns = torch.triu_indices(d, d)
    return (y * trace.sqrt())[:, rows, columns].float()


class GCPNetwork(nn.Module):
    """Forward of the authors' networks: the backbone, the reduction, the layer, the classifier."""

    def forward(self, x):
        return self.classify(covariance_root(self.reduce(self.backbone(x))))

    def reduce(self, x):
        return self.dimension_reduction(x)

    def classify(self, x):
        return self.fc(x)


class GCPResNet(GCPNetwork):
    """The authors' ResNet with GCP: conv5 keeps its resolution."""

    def __init__(self, depth, d, num_classes):
        super().__init__()
        net = getattr(torchvision.models, f'resnet{depth}')()
        for name in ('conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4'):
            setattr(self, name, getattr(net, name))
        block = self.layer4[0]
        (block.conv1 if depth < 50 else block.conv2).stride = (1, 1)
        block.downsample[0].stride = (1, 1)
        self.layer_reduce = nn.Conv2d(net.fc.in_features, d, 1, bias=False)
        self.layer_reduce_bn = nn.BatchNorm2d(d)
        self.fc = nn.Linear(d * (d + 1) // 2, num_classes)

    def backbone(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def reduce(self, x):
        return self.layer_reduce_bn(self.layer_reduce(x)).relu()


class GCPMobileNetV2(GCPNetwork):
    """The authors' MobileNetV2 with GCP."""

    def __init__(self, d, num_classes):
        super().__init__()
        self.features = torchvision.models.mobilenet_v2().features
        self.dimension_reduction = _reduction(1280, d)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(d * (d + 1) // 2, num_classes))

    def backbone(self, x):
        return self.features(x)

    def classify(self, x):
        return self.classifier(x)


class GCPShuffleNetV2(GCPNetwork):
    """The authors' ShuffleNetV2 with GCP."""

    def __init__(self, d, num_classes):
        super().__init__()
        net = torchvision.models.shufflenet_v2_x1_0()
        for name in ('conv1', 'maxpool', 'stage2', 'stage3', 'stage4', 'conv5'):
            setattr(self, name, getattr(net, name))
        self.dimension_reduction = _reduction(1024, d)
        self.fc = nn.Linear(d * (d + 1) // 2, num_classes)

    def backbone(self, x):
        x = self.maxpool(self.conv1(x))
        return self.conv5(self.stage4(self.stage3(self.stage2(x))))


@functools.cache  # not to be changed
def build(architecture, pooling, d=256, num_classes=7):
    """A network with random weights and the statistics of noise, in evaluation mode."""
    torch.manual_seed(0)
    if pooling == 'gap':
        name = 'shufflenet_v2_x1_0' if architecture == 'shufflenet_v2' else architecture
        net = getattr(torchvision.models, name)(num_classes=num_classes)
    elif architecture == 'mobilenet_v2':
        net = GCPMobileNetV2(d, num_classes)
    elif architecture == 'shufflenet_v2':
        net = GCPShuffleNetV2(d, num_classes)
    else:
        net = GCPResNet(int(architecture.removeprefix('resnet')), d, num_classes)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = 1.0  # statistics of the batch that follows, so that signals last
    with torch.no_grad():
        net.train()(torch.randn(4, 3, 64, 64))
    return net.eval()


def release(net, arch):
    """What the authors' training script saves."""
    state = {f'module.{key}': value for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9).state_dict()
    return dict(
        epoch=50, arch=arch, state_dict=state, best_acc1=torch.tensor(78.0), optimizer=optimizer
    )


def trainer_state(net):
    """A ResNet's weights by the names of iSQRT-COV's trainer: numbers in a Sequential."""
    names = dict(conv1='features.0', bn1='features.1', fc='classifier')
    names |= {f'layer{i}': f'features.{i + 3}' for i in range(1, 5)}
    names |= dict(
        layer_reduce='representation.conv_dr_block.0',
        layer_reduce_bn='representation.conv_dr_block.1',
    )
    state = {}
    for key, value in net.state_dict().items():
        first, rest = key.split('.', 1)
        state[f'{names[first]}.{rest}'] = value
    return state


def _reduction(channels, d):
    return nn.Sequential(
        nn.Conv2d(channels, d, 1, bias=False), nn.BatchNorm2d(d), nn.ReLU6(inplace=True)
    )
