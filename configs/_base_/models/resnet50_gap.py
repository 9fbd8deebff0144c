_base_ = 'mmpretrain::_base_/models/resnet50.py'

# Differs from MMPretrain's in its initialization alone, as the paper's networks do: no residual
# block starts at zero, and the classifier starts as PyTorch's linear layer does.
model = dict(backbone=dict(type='GCPResNet', conv5='stride'), head=dict(init_cfg=None))
