# Gao et al., ICCV 2023: 30 epochs, 5 of them warm-up; batch and last rate of the authors' code
epochs, warmup = 30, 5
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=warmup, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        begin=warmup,
        end=epochs,
        T_max=epochs - warmup,
        eta_min=1e-8,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256)
