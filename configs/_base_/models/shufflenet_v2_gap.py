_base_ = 'mmpretrain::_base_/models/shufflenet_v2_1x.py'

# Differs from MMPretrain's in its initialization alone: the paper's code leaves all of it to
# PyTorch.
model = dict(backbone=dict(type='GCPShuffleNetV2'), head=dict(init_cfg=None))
