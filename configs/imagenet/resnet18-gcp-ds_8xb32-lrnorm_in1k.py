_base_ = [
    '../_base_/models/resnet50_gcp.py',
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    '../_base_/schedules/imagenet_resnet_lrnorm.py',
    '../_base_/cls_runtime.py',
]

# conv5 down-samples: a 7x7 map (Table 8, w/ DS)
model = dict(backbone=dict(depth=18, conv5='stride'), neck=dict(in_channels=512))
