_base_ = 'imagenet_mobilenet_lradju.py'

# LRadju as Table 3 of the paper prints it: linear(6e-2, 1e-3, 0), linear(1e-2, 1e-4, 50),
# linear(1e-3, 1e-5, 100) with linear(ls, le, n) = ls - (ls - le) / 50 * (e - n), e = 0 ... 149.
# Each later stage begins ten times higher than the one before it ends.
# It differs from the paper's code, which made the released weights and ends the first two stages
# at 1e-2 and 1e-3, where the next ones begin.
param_scheduler = [
    dict(type='LinearLR', start_factor=1, end_factor=1 / 60, begin=0, end=51),
    dict(type='LinearLR', start_factor=1, end_factor=1 / 100, begin=50, end=101),
    dict(type='LinearLR', start_factor=1, end_factor=1 / 100, begin=100, end=151),
    dict(type='MultiStepLR', milestones=[50, 100], gamma=10),
]
