_base_ = [
    'mmpretrain::_base_/models/resnet18.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/finetune_sgd.py',
    '../_base_/cls_runtime.py',
]

# A network of the digits 0 to 4 learns 5 to 9; README.md makes both.
backbone = dict(type='Pretrained', checkpoint='work_dirs/resnet18-gcp_digits-0-4/epoch_5.pth')
model = dict(
    backbone=dict(type='GCPResNet', conv5='none', init_cfg=dict(**backbone, prefix='backbone.')),
    neck=dict(
        type='GlobalCovariancePooling',
        in_channels=512,
        reduction=(128,),
        init_cfg=dict(**backbone, prefix='neck.'),
    ),
    head=dict(num_classes=5, in_channels=8256, init_cfg=None, topk=(1,)),
)
train_dataloader = dict(batch_size=10, dataset=dict(data_root='data/digits-5-9'))
val_dataloader = dict(dataset=dict(data_root='data/digits-5-9'))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=3)
randomness = dict(seed=0)
