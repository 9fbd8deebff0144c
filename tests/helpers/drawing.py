# A classifier whose training draws random numbers wherever one can: cropping and mixing from
# NumPy's generator, stochastic depth from PyTorch's.
_base_ = '../../configs/digits/resnet18-gcp_1xb64-5e_digits.py'
custom_imports = dict(
    imports=['gcp_mm', 'tests.helpers.faults', 'tests.helpers.poison', 'tests.helpers.run_state']
)
model = dict(
    backbone=dict(drop_path_rate=0.3),
    head=dict(loss=dict(use_soft=True)),
    train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)),
)
