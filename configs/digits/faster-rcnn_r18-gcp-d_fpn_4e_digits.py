_base_ = './faster-rcnn_r18_fpn_4e_digits.py'

checkpoint = 'work_dirs/resnet18-gcp_1xb64-5e_digits/epoch_5.pth'
model = dict(backbone=dict(conv5='stride', init_cfg=dict(checkpoint=checkpoint)))
