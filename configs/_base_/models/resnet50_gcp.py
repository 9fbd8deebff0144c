_base_ = 'mmpretrain::_base_/models/resnet50.py'

model = dict(
    backbone=dict(type='GCPResNet', conv5='none'),
    neck=dict(type='GlobalCovariancePooling', in_channels=2048, reduction=(256,)),
    # 256 * 257 / 2 inputs; PyTorch's own initialization of a linear layer, as in the paper's code
    head=dict(in_channels=32896, init_cfg=None),
)
