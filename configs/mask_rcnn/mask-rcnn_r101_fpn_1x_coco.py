_base_ = './mask-rcnn_r50_fpn_1x_coco.py'

checkpoint = 'work_dirs/resnet101_8xb32-lrnorm_in1k/epoch_100.pth'
model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint=checkpoint)))
