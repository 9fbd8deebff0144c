_base_ = [
    '../_base_/models/faster-rcnn_r50-gcp_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedules/coco_1x.py',
    '../_base_/det_runtime.py',
]

# On 4 GPUs, 2 images each
checkpoint = 'work_dirs/resnet50-gcp_8xb32-lradju_in1k/epoch_50.pth'
model = dict(backbone=dict(conv5='maxpool', init_cfg=dict(checkpoint=checkpoint)))
