_base_ = '../imagenet/resnet50-gcp_8xb32-lradju_in1k.py'

model = dict(neck=dict(norm='none', dropcov=True))
