_base_ = '../digits/resnet18-gcp_1xb64-5e_digits.py'

default_hooks = dict(
    landscape=dict(type='LandscapeHook', interval=5, eta_range=(0.1, 75), num_points=10)
)
