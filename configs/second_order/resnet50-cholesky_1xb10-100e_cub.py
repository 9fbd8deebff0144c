_base_ = '../finetune/resnet50-gcp_1xb10-100e_cub.py'

model = dict(neck=dict(norm='cholesky'))
