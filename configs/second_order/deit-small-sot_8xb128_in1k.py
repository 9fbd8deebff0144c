_base_ = './sot-small_8xb128_in1k.py'

model = dict(backbone=dict(arch='deit-small'))
