_base_ = './resnet50-gcp_1xb10-100e_cub.py'

checkpoint = 'work_dirs/resnet101-gcp_8xb32-lrnorm_in1k/epoch_100.pth'
model = dict(
    backbone=dict(depth=101, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(init_cfg=dict(checkpoint=checkpoint)),
)
