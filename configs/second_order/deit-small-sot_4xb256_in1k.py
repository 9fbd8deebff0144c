_base_ = 'mmpretrain::deit/deit-small_4xb256_in1k.py'

custom_imports = dict(imports=['gcp_mm'], allow_failed_imports=False)

model = dict(
    backbone=dict(out_type='raw'),
    head=dict(type='SoTHead', num_heads=6, width=24, dropout=0.5),
)
