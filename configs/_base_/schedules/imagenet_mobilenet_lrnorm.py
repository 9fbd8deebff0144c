_base_ = 'mmpretrain::_base_/schedules/imagenet_bs256_epochstep.py'

# LRnorm (Table 3 of the paper): lr = 0.045 * 0.98^e, which is MMPretrain's own, for batches of 96.
# e = 0 ... 399 here: the paper calls 0.045 the initial lr (section 3.2).
train_cfg = dict(max_epochs=400)
auto_scale_lr = dict(base_batch_size=96)
