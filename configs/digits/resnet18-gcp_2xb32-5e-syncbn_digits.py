_base_ = './resnet18-gcp_1xb64-5e_digits.py'

# Two processes train as one with all their images: docs/guides/resuming.md
norm_cfg = dict(type='AllReduceBN')
model = dict(backbone=dict(norm_cfg=norm_cfg), neck=dict(norm_cfg=norm_cfg))
train_dataloader = dict(batch_size=32)
