_base_ = [
    'mmpretrain::_base_/models/resnet18.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits.py',
    '../_base_/cls_runtime.py',
]

model = dict(
    backbone=dict(type='GCPResNet', conv5='stride'),
    head=dict(num_classes=10, init_cfg=None, topk=(1,)),
)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=1))
randomness = dict(seed=0)
