# As iSQRT-COV's authors fine-tune (finetune/finetune.sh of jiangtaoxie/fast-MPN-COV): one learning
# rate for all epochs, five times as high for the new classifier. Their script names a weight decay
# of 1e-3 and does not pass it on: 1e-4 is what their program then takes.
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=1.2e-3, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={'head.': dict(lr_mult=5)}),
)
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=10)
