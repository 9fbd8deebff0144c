_base_ = 'mmpretrain::_base_/schedules/imagenet_bs1024_linearlr_bn_nowd.py'

# LRnorm (Table 3 of the paper): lr = 0.5 (1 - step / t_step) in every step of 240 epochs, about
# 3e5 steps. The decay ends with the last epoch, however many steps that is; mmengine's reaches 0 in
# the last step, the formula one step later.
# Unlike MMPretrain's: no warm-up, and weight decay of the BN layers too.
optim_wrapper = dict(paramwise_cfg=None)
param_scheduler = dict(
    _delete_=True, type='PolyLR', power=1, eta_min=0, by_epoch=True, convert_to_iter_based=True
)
train_cfg = dict(max_epochs=240)
