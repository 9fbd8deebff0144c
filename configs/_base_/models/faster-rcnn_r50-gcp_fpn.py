_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'

# Configs that inherit this set conv5, 'stride' (GCP_D) or 'maxpool' (GCP_M), and init_cfg's
# checkpoint.
model = dict(backbone=dict(type='GCPResNet', init_cfg=dict(prefix='backbone.')))
