_base_ = './mask-rcnn_narrow.py'

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # as in pretraining
    backbone=dict(
        type='GCPResNet',
        depth=18,
        conv5='stride',
        init_cfg=dict(
            checkpoint='work_dirs/resnet18_1xb64-5e_digits/epoch_5.pth', prefix='backbone.'
        ),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
    roi_head=dict(bbox_head=dict(num_classes=10), mask_head=dict(num_classes=10, num_convs=2)),
    test_cfg=dict(rpn=dict(max_per_img=50)),  # for a CPU
)
