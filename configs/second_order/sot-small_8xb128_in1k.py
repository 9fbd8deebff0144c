_base_ = [
    '../_base_/models/sot.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    '../_base_/cls_runtime.py',
    '../_base_/schedules/imagenet_sot.py',
]

train_dataloader = dict(batch_size=128)
# The average of the weights is what is validated and saved.
custom_hooks = [
    dict(type='SyncBuffersHook'),
    dict(type='EMAHook', momentum=4e-5, priority='ABOVE_NORMAL'),
]
