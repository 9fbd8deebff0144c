_base_ = './det_runtime.py'

# What does not depend on the images in the configs that tools/make_config.py writes
train_dataloader = dict(
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    # Not drop_last=True, with which MMDetection gives fewer batches than it says.
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(filter_cfg=dict(filter_empty_gt=True)),
)
val_dataloader = dict(
    batch_size=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(test_mode=True),
)
test_dataloader = val_dataloader
optim_wrapper = dict(type='OptimWrapper', clip_grad=dict(max_norm=10))
train_cfg = dict(type='EpochBasedTrainLoop')
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False)
default_hooks = dict(checkpoint=dict(save_best='auto', max_keep_ckpts=1))  # the best and the last
custom_hooks = [dict(type='SyncBuffersHook')]  # all processes validate the same network
randomness = dict(seed=0)
