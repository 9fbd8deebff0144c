_base_ = 'imagenet_mobilenet_lrnorm.py'

# LRfast (Table 3 of the paper): lr = 0.06 * 0.92^e in epochs e = 0 ... 99. The paper does not say
# how many epochs; its code trains 100.
optim_wrapper = dict(optimizer=dict(lr=0.06))
param_scheduler = dict(gamma=0.92)
train_cfg = dict(max_epochs=100)
