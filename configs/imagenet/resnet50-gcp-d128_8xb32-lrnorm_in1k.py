_base_ = 'resnet50-gcp_8xb32-lrnorm_in1k.py'

# 128 * 129 / 2 inputs of the classifier (Table 5)
model = dict(neck=dict(reduction=(128,)), head=dict(in_channels=8256))
