# LRadju, 0.1 (1 - t / T)^2, iteration by iteration: 5 epochs would be too coarse a step.
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = dict(
    type='PolyLR', power=2, eta_min=0, begin=0, end=5, by_epoch=True, convert_to_iter_based=True
)
train_cfg = dict(by_epoch=True, max_epochs=5, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64)
