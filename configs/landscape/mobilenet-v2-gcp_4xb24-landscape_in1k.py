_base_ = '../imagenet/mobilenet-v2-gcp_4xb24-lrnorm_in1k.py'

model = dict(head=dict(dropout=0))
# 38 epochs are 507,148 steps (Figure 2: 500K)
train_cfg = dict(max_epochs=38)
default_hooks = dict(
    landscape=dict(
        type='LandscapeHook', interval=1000, eta_range=(0.045, 1.5), stem='backbone.conv1'
    )
)
