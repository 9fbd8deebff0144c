_base_ = [
    '../_base_/models/resnet50_gap.py',
    'mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py',
    '../_base_/schedules/imagenet_resnet_lradju.py',
    '../_base_/cls_runtime.py',
]
