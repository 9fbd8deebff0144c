_base_ = 'resnet18-gcp_8xb32-lrnorm_in1k.py'

# conv5 down-samples: a 7x7 map (Table 8, w/ DS)
model = dict(backbone=dict(conv5='stride'))
