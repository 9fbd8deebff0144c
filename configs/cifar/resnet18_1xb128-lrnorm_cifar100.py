_base_ = [
    'mmpretrain::_base_/models/resnet18_cifar.py',
    'mmpretrain::_base_/datasets/cifar100_bs16.py',
    '../_base_/schedules/imagenet_resnet_lrnorm.py',
    '../_base_/cls_runtime.py',
]

model = dict(
    backbone=dict(zero_init_residual=False),  # as the paper's
    head=dict(num_classes=100, init_cfg=None, topk=(1, 5)),
)
train_dataloader = dict(batch_size=128)
val_dataloader = dict(batch_size=128)
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1, 5))
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(weight_decay=5e-4))
auto_scale_lr = dict(base_batch_size=128)
randomness = dict(seed=0)
