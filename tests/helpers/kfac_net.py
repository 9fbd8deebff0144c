"""A small network with K-FAC, and its batches."""

import torch
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from torch import nn
from torch.nn import functional as F  # noqa: N812

import gcp_mm.studies  # noqa: F401  registers the wrapper


class Net(BaseModel):
    """Each kind of layer the factors meet in a classifier."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(4, 4, 3, groups=4)
        self.fc = nn.Linear(4, 3)
        self.double()

    def forward(self, inputs, targets, mode='loss'):
        x = self.grouped(F.relu(self.conv(inputs), inplace=True)).mean((2, 3))
        return dict(loss=F.cross_entropy(self.fc(x), targets))


def batch(size=6, seed=0):
    """Random images and labels."""
    generator = torch.Generator().manual_seed(seed)
    return dict(
        inputs=torch.randn(size, 2, 5, 5, generator=generator).double(),
        targets=torch.randint(0, 3, (size,), generator=generator),
    )


def make(**options):
    """The network and its KFACOptimWrapper."""
    torch.manual_seed(0)
    net = Net()
    cfg = dict(type='KFACOptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9), **options)
    return net, build_optim_wrapper(net, cfg)
