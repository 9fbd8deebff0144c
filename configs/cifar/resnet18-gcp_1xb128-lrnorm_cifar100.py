_base_ = './resnet18_1xb128-lrnorm_cifar100.py'

model = dict(
    backbone=dict(strides=(1, 2, 2, 1)),  # no down-sampling in conv5: a map of 8x8 positions
    neck=dict(type='GlobalCovariancePooling', in_channels=512, reduction=(128,)),
    head=dict(in_channels=8256),  # 128 * 129 / 2
)
