_base_ = 'resnet18-gcp_8xb32-lrnorm_in1k.py'

# Two reductions, to 256 and to 128 channels: 128 * 129 / 2 inputs of the classifier (Table 9)
model = dict(neck=dict(reduction=(256, 128)), head=dict(in_channels=8256))
