_base_ = [
    '../_base_/models/shufflenet_v2_gcp.py',
    '../_base_/datasets/imagenet_bs256_pil_resize_jitter.py',
    '../_base_/schedules/imagenet_shufflenet_lradju.py',
    '../_base_/cls_runtime.py',
]
