# jiangtaoxie/SoT: timm's recipe, 300 epochs after 5 of warm-up within them, 10 more at the end
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.03),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys={'.cls_token': dict(decay_mult=0.0)}
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=5, end=300, T_max=295, eta_min=1e-5),
    dict(type='ConstantLR', factor=1, begin=300, end=310),
]
train_cfg = dict(by_epoch=True, max_epochs=310, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
