model = dict(
    type='ImageClassifier',
    backbone=dict(type='SoTVisionTransformer', arch='sot-small', drop_path_rate=0.1),
    neck=None,
    head=dict(
        type='SoTHead',
        num_classes=1000,
        in_channels=384,
        num_heads=6,
        width=24,
        dropout=0.5,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        cal_acc=False,
    ),
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ],
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
