_base_ = 'mmpretrain::_base_/schedules/imagenet_bs256_epochstep.py'

# LRadju as in the code that trained the paper's networks: linear from 0.06 to 0.01, to 0.001 and
# to 0.00001, in stages that begin at epochs e = 0, 50 and 100, without a jump. The paper's Table 3
# prints other numbers: see imagenet_mobilenet_lradju_printed.py.
# A stage reaches its end value in the first epoch of the next one, hence 51, 101 and 151.
optim_wrapper = dict(optimizer=dict(lr=0.06))
param_scheduler = [
    dict(type='LinearLR', start_factor=1, end_factor=1 / 6, begin=0, end=51),
    dict(type='LinearLR', start_factor=1, end_factor=1 / 10, begin=50, end=101),
    dict(type='LinearLR', start_factor=1, end_factor=1 / 100, begin=100, end=151),
]
train_cfg = dict(max_epochs=150)
auto_scale_lr = dict(base_batch_size=192)
