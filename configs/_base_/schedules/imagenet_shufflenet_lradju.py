_base_ = 'imagenet_shufflenet_lrnorm.py'

# LRadju (Table 3 of the paper): lr = 0.5 (1 - step / t_step) in every step of 100 epochs
train_cfg = dict(max_epochs=100)
