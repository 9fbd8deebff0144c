_base_ = './cls_runtime.py'

# What does not depend on the images in the configs that tools/make_config.py writes
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_dataloader = dict(
    drop_last=True,  # a batch of few images would upset batch normalization
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
optim_wrapper = dict(type='OptimWrapper')
train_cfg = dict(type='EpochBasedTrainLoop')
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False)
default_hooks = dict(checkpoint=dict(save_best='auto', max_keep_ckpts=1))  # the best and the last
randomness = dict(seed=0)
