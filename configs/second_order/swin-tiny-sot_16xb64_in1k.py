_base_ = 'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py'

custom_imports = dict(imports=['gcp_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(type='SoTSwinTransformer'),
    neck=None,  # the head takes the feature map
    head=dict(
        _delete_=True,
        type='SoTHead',
        num_classes=1000,
        in_channels=768,
        num_heads=6,
        width=24,
        class_tokens=0,
        dropout=0.5,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)
