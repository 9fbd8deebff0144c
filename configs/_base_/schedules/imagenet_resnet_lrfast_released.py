_base_ = 'imagenet_resnet_lrfast.py'

# LRfast as in the code that trained the released weights: it counts the epochs from 0, so
# lr = 0.1 (1 - (e - 1) / 52)^11 in epochs e = 0 ... 29, from 0.1233 on. The paper counts from 1:
# from 0.1 on. Written as a multiple of the first rate, lr is
# 0.1 (53 / 52)^11 * (1 - e / 53)^11.
optim_wrapper = dict(optimizer=dict(lr=0.1 * (53 / 52) ** 11))
param_scheduler = dict(end=54)
