_base_ = [
    '../_base_/models/resnet50_gcp.py',
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    '../_base_/schedules/imagenet_resnet_lrnorm.py',
    '../_base_/cls_runtime.py',
]

# Two reductions, to 256 and to 128 channels: 128 * 129 / 2 inputs of the classifier (Table 9)
model = dict(
    backbone=dict(depth=101),
    neck=dict(reduction=(256, 128)),
    head=dict(in_channels=8256),
)
