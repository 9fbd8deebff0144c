_base_ = 'mmpretrain::_base_/schedules/imagenet_bs256.py'

# LRfast (Table 3 of the paper): lr = 0.1 (1 - (e - 1) / 52)^11 in epochs e = 1 ... 30
param_scheduler = dict(
    _delete_=True, type='PolyLR', power=11, eta_min=0, begin=0, end=53, by_epoch=True
)
train_cfg = dict(max_epochs=30)
