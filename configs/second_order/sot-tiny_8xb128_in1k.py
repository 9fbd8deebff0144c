_base_ = './sot-small_8xb128_in1k.py'

model = dict(
    backbone=dict(arch='sot-tiny'),
    head=dict(in_channels=240, width=14, dropout=0.0),
)
