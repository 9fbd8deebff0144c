_base_ = [
    '../_base_/models/resnet50_gcp.py',
    'mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py',
    '../_base_/schedules/imagenet_resnet_lradju_released.py',
    '../_base_/cls_runtime.py',
]

model = dict(backbone=dict(depth=18), neck=dict(in_channels=512))
