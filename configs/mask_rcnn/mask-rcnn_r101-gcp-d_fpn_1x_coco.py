_base_ = './mask-rcnn_r101_fpn_1x_coco.py'

checkpoint = 'work_dirs/resnet101-gcp_8xb32-lrnorm_in1k/epoch_100.pth'
model = dict(backbone=dict(conv5='stride', init_cfg=dict(checkpoint=checkpoint)))
