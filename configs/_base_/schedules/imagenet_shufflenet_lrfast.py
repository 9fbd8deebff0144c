_base_ = 'imagenet_shufflenet_lrnorm.py'

# LRfast (Table 3 of the paper): lr = 0.5 (1 - step / t_step) in every step of 60 epochs
train_cfg = dict(max_epochs=60)
