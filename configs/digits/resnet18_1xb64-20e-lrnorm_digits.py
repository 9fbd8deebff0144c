_base_ = './resnet18_1xb64-5e_digits.py'

# LRnorm of the paper's shape: a tenth of the rate after 30, 60 and 90 % of the epochs
param_scheduler = dict(_delete_=True, type='MultiStepLR', milestones=[6, 12, 18], gamma=0.1)
train_cfg = dict(max_epochs=20)
