_base_ = './sot-small_8xb128_in1k.py'

model = dict(
    backbone=dict(arch='sot-base'),
    head=dict(in_channels=528, width=38, dropout=0.7),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=5e-4, weight_decay=0.065))
auto_scale_lr = dict(base_batch_size=512)
