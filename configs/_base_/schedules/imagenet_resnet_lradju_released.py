_base_ = 'imagenet_resnet_lradju.py'

# LRadju as in the code that trained the released weights: it counts the epochs from 0, so
# lr = 0.1 (1 - (e - 1) / 49)^2 in epochs e = 0 ... 49, from 0.1041 to 4.2e-5. The paper counts
# from 1: from 0.1 to 0. Written as a multiple of the first rate, lr is
# 0.1 (50 / 49)^2 * (1 - e / 50)^2.
optim_wrapper = dict(optimizer=dict(lr=0.1 * (50 / 49) ** 2))
param_scheduler = dict(end=51)
