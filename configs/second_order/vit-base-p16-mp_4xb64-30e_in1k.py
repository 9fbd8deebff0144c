_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    '../_base_/schedules/imagenet_moment_probing.py',
    '../_base_/cls_runtime.py',
]

checkpoint = 'work_dirs/vit-base-p16.pth'
# Moment Probing: the backbone's weights stay as they are, so it needs some.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch='b',
        out_type='raw',
        frozen_stages=12,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    head=dict(type='MomentProbingHead', num_classes=1000, in_channels=768),
)
# The average of the weights is what is validated and saved.
custom_hooks = [
    dict(type='SyncBuffersHook'),
    dict(type='EMAHook', momentum=8e-5, priority='ABOVE_NORMAL'),
]
