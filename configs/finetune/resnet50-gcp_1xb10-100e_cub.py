_base_ = [
    '../_base_/models/resnet50_gcp.py',
    '../_base_/datasets/cub_bs10_448.py',
    '../_base_/schedules/finetune_sgd.py',
    '../_base_/cls_runtime.py',
]

checkpoint = 'work_dirs/resnet50-gcp_8xb32-lrnorm_in1k/epoch_100.pth'
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')),
    neck=dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='neck.')),
    head=dict(num_classes=200, topk=(1,)),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
