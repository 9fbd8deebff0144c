_base_ = '../imagenet/resnet18-gcp_8xb32-lrnorm_in1k.py'

# 20 epochs are 100,100 steps (Figure 2: 100K), all before LRnorm's first milestone
param_scheduler = dict(milestones=[])
train_cfg = dict(max_epochs=20)
default_hooks = dict(landscape=dict(type='LandscapeHook', interval=500, eta_range=(0.1, 75)))
