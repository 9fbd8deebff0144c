_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedules/coco_1x.py',
    '../_base_/det_runtime.py',
]

checkpoint = 'work_dirs/resnet50_8xb32-lrnorm_in1k/epoch_100.pth'
model = dict(
    backbone=dict(
        type='GCPResNet',
        conv5='stride',
        init_cfg=dict(checkpoint=checkpoint, prefix='backbone.'),
    )
)
