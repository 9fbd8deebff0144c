_base_ = 'mobilenet-v2-gcp_4xb24-lrnorm_in1k.py'

# 128 * 129 / 2 inputs of the classifier (Table 5)
model = dict(neck=dict(reduction=(128,)), head=dict(in_channels=8256))
