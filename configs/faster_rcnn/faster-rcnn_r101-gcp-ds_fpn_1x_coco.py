_base_ = './faster-rcnn_r101-gcp-d_fpn_1x_coco.py'

# From a backbone that down-samples in conv5 already in pretraining (Table 8, w/ DS)
checkpoint = 'work_dirs/resnet101-gcp-ds_8xb32-lrnorm_in1k/epoch_100.pth'
model = dict(backbone=dict(init_cfg=dict(checkpoint=checkpoint)))
