_base_ = './faster-rcnn_r50_fpn_1x_coco.py'

checkpoint = 'work_dirs/resnet18-gcp_8xb32-lrnorm_in1k/epoch_100.pth'
model = dict(
    backbone=dict(depth=18, conv5='stride', init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
