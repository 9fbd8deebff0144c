_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

# Narrow heads and few proposals, for a CPU
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
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=128),
    rpn_head=dict(in_channels=128, feat_channels=128),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=128),
        bbox_head=dict(num_classes=10, in_channels=128, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=128),
        mask_head=dict(num_classes=10, num_convs=2, in_channels=128, conv_out_channels=64),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=200), rcnn=dict(sampler=dict(num=64))
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=50)),
)
