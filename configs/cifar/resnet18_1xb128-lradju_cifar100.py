_base_ = './resnet18_1xb128-lrnorm_cifar100.py'

# LRadju of the paper's shape: lr = 0.1 (1 - (e - 1) / 49)^2 in epochs e = 1 ... 50
param_scheduler = dict(
    _delete_=True, type='PolyLR', power=2, eta_min=0, begin=0, end=50, by_epoch=True
)
train_cfg = dict(max_epochs=50)
