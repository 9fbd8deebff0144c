_base_ = [
    '../_base_/models/mobilenet_v2_gcp.py',
    'mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py',
    '../_base_/schedules/imagenet_mobilenet_lradju.py',
    '../_base_/cls_runtime.py',
]

train_dataloader = dict(batch_size=48)
